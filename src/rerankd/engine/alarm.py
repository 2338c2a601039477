"""Calls a function at given times, on a thread of its own, whatever other threads do then. Knows no request."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable


class Alarm:
    """Rings at the earliest time that is set.

    Args:
        ring: called once for all times that have come; it gives the next one, or infinity: the alarm keeps one time.
        clock: seconds, monotonic.
    """

    def __init__(self, ring: Callable[[], float], clock: Callable[[], float]) -> None:
        self._ring, self._clock = ring, clock
        self._changed = threading.Condition()
        self._next = math.inf
        self._closed = False
        self._thread: threading.Thread | None = None  # only a call with a deadline needs one

    def set(self, at: float) -> None:
        """Rings at this time, or at once if it has come."""
        with self._changed:
            if at >= self._next or self._closed:
                return
            self._next = at
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rerankd-alarm", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Stops ringing, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._ring = lambda: math.inf  # drops what it rang for

    def _run(self) -> None:
        while self._wait():
            self.set(self._ring())

    def _wait(self) -> bool:
        """Until the next time; False at the end."""
        with self._changed:
            while not self._closed:
                left_s = self._next - self._clock()
                if left_s <= 0:
                    self._next = math.inf
                    return True
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            return False
