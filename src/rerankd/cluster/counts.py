"""What the replicas have computed, as far as the front knows: from the counters in each of their answers."""

from __future__ import annotations

import math
from threading import Lock

from rerankd.cluster.packed import Scored
from rerankd.engine.counters import BATCH_FILL, QUEUE_S, Spread
from rerankd.types import CacheStats, EngineStats, Histogram


class Counts:
    """Written by the engine's thread, read by any.

    Attributes:
        lost: parts whose replica did not answer.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._lock = Lock()
        self._queue_s = Spread(QUEUE_S)
        self._latest: dict[str, EngineStats] = {}  # by replica; those that ended stay counted

    def began(self, waited_s: float) -> None:
        """A call's first part is sent."""
        with self._lock:
            self._queue_s.add(waited_s)

    def computed(self, answer: Scored) -> None:
        """A part is answered. Answers of one replica may arrive out of order."""
        with self._lock:
            before = self._latest.get(answer.replica)
            if before is None or before.tokens_computed <= answer.stats.tokens_computed:
                self._latest[answer.replica] = answer.stats

    @property
    def tokens_per_s(self) -> float:
        """Of one replica, while it computes; 1 before the first answer."""
        with self._lock:
            stats = list(self._latest.values())
        seconds = sum(one.seconds_computing for one in stats)
        return sum(one.tokens_computed for one in stats) / seconds if seconds else 1.0

    def stats(self, running: int, waiting: int, scores: CacheStats) -> EngineStats:
        """The sum over all replicas, with the queue and the score cache of the front."""
        with self._lock:
            stats = list(self._latest.values())
            return EngineStats(
                running,
                waiting,
                sum(one.tokens_computed for one in stats),
                sum(one.seconds_computing for one in stats),
                _histogram([one.batch_fill for one in stats]),
                self._queue_s.histogram,
                _caches([one.prefix_cache for one in stats]),
                scores,
            )


def _histogram(values: list[Histogram]) -> Histogram:
    bounds = (*BATCH_FILL, math.inf)
    counts = [sum(column) for column in zip(*(one.counts for one in values), strict=True)]
    return Histogram(bounds, tuple(counts) or (0,) * len(bounds), sum(one.total for one in values))


def _caches(values: list[CacheStats]) -> CacheStats:
    return CacheStats(
        sum(one.hits for one in values),
        sum(one.misses for one in values),
        sum(one.tokens for one in values),
        sum(one.bytes for one in values),
    )
