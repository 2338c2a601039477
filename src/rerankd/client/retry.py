"""Whether a request that failed is sent again, and when."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""A server that asks for a longer pause is not asked again in the same call."""

PASSING = frozenset({408, 409, 429})


def is_passing(response: httpx2.Response) -> bool:
    """Whether the same request may be answered later. (501: the server cannot rerank at all.)

    Where credit is lacking, some APIs answer 429, too: then rerankd says `x-should-retry: false`, which the openai SDK
    keeps to as well.
    """
    if response.headers.get("x-should-retry") == "false":
        return False
    status = response.status_code
    return status in PASSING or (status >= 500 and status != 501)


def is_broken_connection(error: httpx2.HTTPError) -> bool:
    """Whether the server was not reached, or hung up. Not when it was too slow: the caller's patience is spent."""
    return isinstance(error, httpx2.NetworkError | httpx2.RemoteProtocolError | httpx2.ConnectTimeout)


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """Seconds until the server wants to be asked again, >= 0: a number, or an HTTP date (RFC 9110, 10.2.3)."""
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


def wait_s(attempt: int, asked_s: float | None) -> float:
    """Seconds to wait after an attempt, the first being 0. What the server asks for is never undercut; otherwise twice
    as long each time. A random share keeps clients that failed together apart."""
    if asked_s is not None:
        return asked_s * random.uniform(1.0, 1.1)
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)
