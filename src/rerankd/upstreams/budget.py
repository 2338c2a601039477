"""How many retries a pool may make. Pure: the time is passed in.

Where every upstream fails, retries multiply the load that made them fail. So a call pays in a fifth of a retry, and a
retry takes a whole one.
"""

from __future__ import annotations

PER_CALL = 0.2
"""Retries that each call adds."""

AT_FIRST = 3.0
"""Retries that are there at first. After a pause they come back, so that rare calls have theirs."""

BACK_PER_S = 0.1
"""Up to AT_FIRST, while fewer are left."""

AT_MOST = 500.0
"""Retries that many good calls save up."""


class RetryBudget:
    """A bucket of retries."""

    def __init__(self, now: float) -> None:
        self._left = AT_FIRST
        self._at = now

    def add_call(self) -> None:
        """A call begins."""
        self._left = min(self._left + PER_CALL, AT_MOST)

    def take(self, now: float) -> bool:
        """Takes one retry; False if none is left."""
        if self._left < AT_FIRST:
            self._left = min(AT_FIRST, self._left + BACK_PER_S * (now - self._at))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
