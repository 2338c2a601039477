"""Slows down password guessing. Counts in memory: per process, and only while it runs."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from cachetools import LRUCache

from rerankd.admission.identity import network_of

WINDOW_S = 15 * 60
PER_EMAIL = 10
PER_ADDRESS = 30
"""Failures within the window."""

MAX_REMEMBERED = 20_000
"""E-mail addresses and networks; the least recently used are forgotten first."""


class Throttle:
    """Counts failed attempts by e-mail address and by network, whether or not the e-mail address has an account.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: LRUCache[tuple[str, str], deque[float]] = LRUCache(MAX_REMEMBERED)

    def attempt(self, email: str, address: str) -> int:
        """Counts an attempt as failed until `succeeded` is called.

        Returns:
            Seconds to wait; 0: the attempt may be made. A refused attempt is not counted.
        """
        now = self._clock()
        limits = {("email", email): PER_EMAIL, ("address", network_of(address)): PER_ADDRESS}
        with self._lock:
            waits = [self._wait(key, limit, now) for key, limit in limits.items()]
            if wait := max(waits):
                return math.ceil(wait)
            for key in limits:
                self._failures.setdefault(key, deque()).append(now)
        return 0

    def succeeded(self, email: str, address: str) -> None:
        """The last attempt succeeded: forgives this one to the network, and all failures to the e-mail address."""
        with self._lock:
            self._failures.pop(("email", email), None)
            if times := self._failures.get(("address", network_of(address))):
                times.pop()

    def _wait(self, key: tuple[str, str], limit: int, now: float) -> float:
        times = self._failures.get(key)
        if times is None:
            return 0
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        return times[-limit] + WINDOW_S - now if len(times) >= limit else 0
