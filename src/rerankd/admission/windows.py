"""Counts calls and tokens per caller in this process, by a monotonic clock. Knows no limits."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

from cachetools import TTLCache

MINUTE_S = 60


@dataclass(slots=True)
class _Counts:
    """One caller's counts.

    Attributes:
        calls: the times of the last minute's calls.
        minute: the number of the current minute.
        current, previous: tokens of the current minute and of the one before.
    """

    calls: deque[float] = field(default_factory=deque)
    minute: int = 0
    current: int = 0
    previous: int = 0


class MemoryWindows:
    """Calls and tokens by caller. A caller is forgotten after two minutes without a call."""

    def __init__(self) -> None:
        self._callers: TTLCache[str, _Counts] = TTLCache(math.inf, 2 * MINUTE_S, timer=lambda: monotonic())

    def calls_left(self, subject: str, amount: int) -> tuple[int, float]:
        """(how many more calls fit, seconds until the oldest counted call is a minute old)."""
        counts, now = self._now(subject)
        if not counts.calls:
            return amount, 0.0
        return amount - len(counts.calls), counts.calls[max(0, len(counts.calls) - amount)] + MINUTE_S - now

    def add_call(self, subject: str) -> None:
        counts, now = self._now(subject)
        counts.calls.append(now)
        self._callers[subject] = counts  # restarts its two minutes

    def tokens(self, subject: str) -> tuple[int, float, int, float]:
        """(the previous minute's tokens, seconds until their weight is 0, and the same for this minute)."""
        counts, now = self._now(subject)
        left = MINUTE_S - now % MINUTE_S
        return counts.previous, left, counts.current, left + MINUTE_S

    def add_tokens(self, subject: str, number: int) -> None:
        counts, _ = self._now(subject)
        counts.current += number
        self._callers[subject] = counts  # restarts its two minutes

    def _now(self, subject: str) -> tuple[_Counts, float]:
        """The counts as of now, not yet stored."""
        now = monotonic()
        counts = self._callers.get(subject) or _Counts(minute=int(now // MINUTE_S))
        while counts.calls and counts.calls[0] <= now - MINUTE_S:
            counts.calls.popleft()
        if passed := int(now // MINUTE_S) - counts.minute:
            counts.previous, counts.current = (counts.current if passed == 1 else 0), 0
            counts.minute += passed
        return counts, now
