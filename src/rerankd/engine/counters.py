"""Counts the work of an engine since its start. Knows no queue, no clock and no way to show it."""

from __future__ import annotations

import math
from bisect import bisect_left
from threading import Lock

from rerankd.stats import CacheStats, EngineStats, Histogram

BATCH_FILL = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 2.0)
QUEUE_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Counters:
    """The engine's thread writes them and any thread reads them, under one lock, so the numbers are consistent."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tokens = 0
        self._seconds = 0.0
        self._prefixes = CacheStats()
        self._batch_fill = Spread(BATCH_FILL)
        self._queue_s = Spread(QUEUE_S)

    def began(self, waited_s: float) -> None:
        """A request's first prompt is about to be computed."""
        with self._lock:
            self._queue_s.add(waited_s)

    def computed(self, tokens: int, seconds: float, max_tokens: int, prefixes: CacheStats) -> None:
        """A batch is done.

        Args:
            max_tokens: that a batch may have.
            prefixes: of the model's cache, this batch included.
        """
        with self._lock:
            self._tokens += tokens
            self._seconds += seconds
            self._prefixes = prefixes
            self._batch_fill.add(tokens / max_tokens)

    def stats(self, running: int, waiting: int, scores: CacheStats) -> EngineStats:
        """A snapshot of all counters, with the state of the queue and of the score cache."""
        with self._lock:
            return EngineStats(
                running,
                waiting,
                self._tokens,
                self._seconds,
                self._batch_fill.histogram,
                self._queue_s.histogram,
                self._prefixes,
                scores,
            )


class Spread:
    """A histogram that grows. bounds: of its buckets, without the infinite one."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def histogram(self) -> Histogram:
        return Histogram(self._bounds, tuple(self._counts), self._total)
