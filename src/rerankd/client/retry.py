"""The retry policy: which failures are retried, and after how long. Knows no API."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""A server that asks for a longer wait is not retried in the same call."""

RETRYABLE = frozenset({408, 409, 429})


def is_retryable(response: httpx2.Response) -> bool:
    """Whether the same request may succeed later. 501 is not: the server cannot rerank at all.

    Some APIs answer 429 to a caller out of credit, too. rerankd then sends `x-should-retry: false`, which the openai
    SDK honours as well.
    """
    if response.headers.get("x-should-retry") == "false":
        return False
    status = response.status_code
    return status in RETRYABLE or (status >= 500 and status != 501)


def is_connection_failure(error: httpx2.HTTPError) -> bool:
    """Whether the connection failed or broke. False for a timeout of the reply: the caller's time is used up."""
    return isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError | httpx2.ConnectTimeout)


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds of `Retry-After`, >= 0: a number, or an HTTP date (RFC 9110, 10.2.3). None if there is none."""
    text = headers.get("retry-after", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def wait_s(attempt: int, wanted_s: float | None) -> float:
    """Seconds to wait after an attempt; the first attempt is 0.

    At least `wanted_s`, the server's `Retry-After`, if there is one; otherwise exponential backoff. Random jitter keeps
    clients that failed together apart.
    """
    if wanted_s is not None:
        return wanted_s * random.uniform(1.0, 1.1)
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)
