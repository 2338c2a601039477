"""Rate limits and charges as HTTP headers."""

from __future__ import annotations

from collections.abc import Mapping

from rerankd.accounts.decision import Charge
from rerankd.errors import RateLimitStatus


def rate_limit_headers(limits: Mapping[str, RateLimitStatus]) -> dict[str, str]:
    """`x-ratelimit-limit-requests`, `x-ratelimit-remaining-requests`, `x-ratelimit-reset-requests`; also of tokens."""
    headers = {}
    for kind, status in limits.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(status.limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(status.remaining)
        headers[f"x-ratelimit-reset-{kind}"] = f"{status.reset_s}s"
    return headers


def charge_headers(charge: Charge | None) -> dict[str, str]:
    """The cost in millionths, and the tokens; empty without accounts."""
    return {} if charge is None else {"x-rerankd-cost": str(charge.cost), "x-rerankd-tokens": str(charge.tokens)}
