"""The headers of replies: warnings, rate limits, charges, and what an error demands of a client."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rerankd.accounts.decision import Charge
from rerankd.apis.errors import BodyTimeout, BodyTooLarge, MethodNotAllowed, UnsupportedEncoding
from rerankd.errors import OutOfCredit, RateLimited, RateLimitStatus, RerankdError, Unavailable

UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
"""A line feed would begin another header; a server sends none of the others."""

MAX_WARNING_HEADER = 1000
"""Characters; proxies refuse long headers. The body holds every warning. The log holds none: some quote the caller."""


def rate_limit_headers(limits: Mapping[str, RateLimitStatus]) -> dict[str, str]:
    """`x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests`; also of tokens."""
    headers = {}
    for kind, status in limits.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(status.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(status.remaining)
        headers[f"x-ratelimit-reset-{kind}"] = f"{status.reset_s}s"
    return headers


def upstream_headers(upstream: str | None, attempts: int) -> dict[str, str]:
    """The name of the server that scored, and the number of attempts if it was not the first."""
    if upstream is None:
        return {}
    more = {"x-rerankd-attempts": str(attempts)} if attempts > 1 else {}
    return {"x-rerankd-upstream": header_text(upstream), **more}


def charge_headers(charge: Charge | None) -> dict[str, str]:
    """The cost in millionths, and the tokens; empty without accounts."""
    return {} if charge is None else {"x-rerankd-cost": str(charge.cost), "x-rerankd-tokens": str(charge.tokens)}


def error_headers(error: RerankdError, status: int) -> dict[str, str]:
    """The headers of a refusal, whatever its body."""
    headers = {}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, RateLimited):
        headers |= rate_limit_headers(error.limits)
    if isinstance(error, OutOfCredit):
        headers["x-should-retry"] = "false"  # the openai SDK reads it; DashScope's API answers 429
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, BodyTooLarge | BodyTimeout):
        headers["connection"] = "close"  # the rest of the body is not read
    if isinstance(error, UnsupportedEncoding):
        headers["accept-encoding"] = ", ".join(error.read)  # see RFC 9110
    return headers


def warning_header(warnings: tuple[str, ...]) -> dict[str, str]:
    """Every deviation from the request, in one header that every client can see."""
    if not warnings:
        return {}
    text = header_text("; ".join(warnings))
    if len(text) > MAX_WARNING_HEADER:
        text = f"{text[:MAX_WARNING_HEADER]}... ({len(warnings)} warnings)"
    return {"x-rerankd-warning": text}


def relevance_header(nothing_relevant: bool) -> dict[str, str]:
    """Says that no result is relevant; empty if one may be."""
    return {"x-rerankd-nothing-relevant": "true"} if nothing_relevant else {}


def header_text(text: str) -> str:
    """The text in printable ASCII."""
    return UNPRINTABLE.sub(" ", text.encode("ascii", "backslashreplace").decode())
