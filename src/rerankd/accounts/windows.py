"""Counts in this process, by a clock that never goes back: calls in a moving minute, tokens in this one and the last.

Knows no limit, but the amount that it is asked about.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from time import monotonic

MINUTE_S = 60


@dataclass(slots=True)
class _Counts:
    """Of one caller. minute: the number of the one in which `current` tokens came; `previous`: in the one before."""

    calls: deque[float] = field(default_factory=deque)
    minute: int = 0
    current: int = 0
    previous: int = 0
    seen: float = 0.0


class MemoryWindows:
    """Calls and tokens by caller. Whoever was not seen for two minutes is forgotten."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, _Counts] = OrderedDict()  # the longest unseen first

    def calls_left(self, who: str, amount: int) -> tuple[int, float]:
        """How many more calls fit, and in how many seconds the oldest one is a minute old."""
        counts, now = self._now(who)
        if not counts.calls:
            return amount, 0.0
        return amount - len(counts.calls), counts.calls[max(0, len(counts.calls) - amount)] + MINUTE_S - now

    def add_call(self, who: str) -> None:
        counts, now = self._now(who)
        counts.calls.append(now)
        self._keep(who, counts, now)

    def tokens(self, who: str) -> tuple[int, float, int, float]:
        """(of the minute before, seconds until it weighs nothing; of this minute, likewise)."""
        counts, now = self._now(who)
        left = MINUTE_S - now % MINUTE_S
        return counts.previous, left, counts.current, left + MINUTE_S

    def add_tokens(self, who: str, number: int) -> None:
        counts, now = self._now(who)
        counts.current += number
        self._keep(who, counts, now)

    def _now(self, who: str) -> tuple[_Counts, float]:
        """The counts as of now; they are not kept yet."""
        now = monotonic()
        counts = self._callers.get(who) or _Counts(minute=int(now // MINUTE_S))
        while counts.calls and counts.calls[0] <= now - MINUTE_S:
            counts.calls.popleft()
        if passed := int(now // MINUTE_S) - counts.minute:
            counts.previous, counts.current = (counts.current if passed == 1 else 0), 0
            counts.minute += passed
        return counts, now

    def _keep(self, who: str, counts: _Counts, now: float) -> None:
        counts.seen = now
        self._callers[who] = counts
        self._callers.move_to_end(who)
        while next(iter(self._callers.values())).seen < now - 2 * MINUTE_S:
            self._callers.popitem(last=False)
