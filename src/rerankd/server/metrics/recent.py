"""Sums over the last minute."""

from __future__ import annotations

import threading
from collections.abc import Callable

MINUTE_S = 60


class LastMinute:
    """A sum over the last sixty seconds, by whole seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sums: dict[int, int] = {}
        self._counted = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self._add(amount)

    def add_growth(self, count: int) -> None:
        """Adds the growth of a counter since the last call; a lower value means that the counter restarted."""
        with self._lock:
            self._add(count - self._counted if count >= self._counted else count)
            self._counted = count

    def total(self) -> int:
        with self._lock:
            self._forget()
            return sum(self._sums.values())

    def _add(self, amount: int) -> None:
        now = self._forget()
        self._sums[now] = self._sums.get(now, 0) + amount

    def _forget(self) -> int:
        """Drops older seconds, and returns the current one."""
        now = int(self._clock())
        self._sums = {second: amount for second, amount in self._sums.items() if second > now - MINUTE_S}
        return now
