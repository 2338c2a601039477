"""How many requests a minute one caller may send."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from rerankd.errors import RateLimited


class RateLimit:
    """A moving window of a minute for each caller; refused requests are not counted.

    Args:
        requests_per_minute: None for no limit.
    """

    def __init__(self, requests_per_minute: int | None) -> None:
        self._item = RateLimitItemPerMinute(requests_per_minute) if requests_per_minute else None
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, caller: str) -> None:
        """Counts one request.

        Raises:
            RateLimited: the caller's minute is full.
        """
        if self._item is None or self._limiter.hit(self._item, caller):
            return
        reset, _ = self._limiter.get_window_stats(self._item, caller)
        seconds = max(1, math.ceil(reset - time.time()))
        raise RateLimited(
            f"Rate limit exceeded: {self._item.amount} requests a minute are allowed. Try again in {seconds} s.",
            seconds,
        )
