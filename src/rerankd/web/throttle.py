"""Slows down who guesses passwords. In memory: it holds for one process, and no longer than that runs."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

WINDOW_S = 15 * 60
PER_EMAIL = 10
PER_ADDRESS = 30
"""Failures within the window."""

MAX_REMEMBERED = 20_000
"""E-mail addresses and networks; the oldest are forgotten first."""


class Throttle:
    """Failed attempts by e-mail address and by network address, whether or not the e-mail address has an account.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def attempt(self, email: str, address: str) -> int:
        """Counts an attempt as failed until `succeeded` is called.

        Returns:
            Seconds to wait; 0: the attempt may be made. What may not is not counted.
        """
        now = self._clock()
        limits = {("email", email): PER_EMAIL, ("address", network_of(address)): PER_ADDRESS}
        with self._lock:
            waits = [self._wait(who, limit, now) for who, limit in limits.items()]
            if wait := max(waits):
                return math.ceil(wait)
            for who in limits:
                self._failures.setdefault(who, deque()).append(now)
                self._failures.move_to_end(who)
            while len(self._failures) > MAX_REMEMBERED:
                self._failures.popitem(last=False)
        return 0

    def succeeded(self, email: str, address: str) -> None:
        """The latest attempt was right: the address is trusted with it, the e-mail address starts anew."""
        with self._lock:
            self._failures.pop(("email", email), None)
            if times := self._failures.get(("address", network_of(address))):
                times.pop()

    def _wait(self, who: tuple[str, str], limit: int, now: float) -> float:
        times = self._failures.get(who)
        if times is None:
            return 0
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        return times[-limit] + WINDOW_S - now if len(times) >= limit else 0


def network_of(address: str) -> str:
    """Who has one IPv6 address has the 2^64 of its network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
