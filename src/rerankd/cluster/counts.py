"""The work of the replicas, as the front knows it from the counters in their answers."""

from __future__ import annotations

from threading import Lock

from rerankd.cluster.packed import Scored
from rerankd.engine.counters import Counters
from rerankd.stats import CacheStats, EngineStats


class Counts:
    """Written by the engine's thread, read by any.

    Attributes:
        lost: parts whose replica did not answer.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._lock = Lock()
        self._front = Counters()  # it computes nothing
        self._latest: dict[str, EngineStats] = {}  # by replica; those that ended stay counted

    def began(self, waited_s: float) -> None:
        """A call's first part is sent."""
        self._front.began(waited_s)

    def computed(self, answer: Scored) -> None:
        """A part is answered. Answers of one replica may arrive out of order."""
        with self._lock:
            before = self._latest.get(answer.replica)
            if before is None or before.tokens_computed <= answer.stats.tokens_computed:
                self._latest[answer.replica] = answer.stats

    @property
    def tokens_per_s(self) -> float:
        """The speed of one replica while it computes; 1 before the first answer."""
        with self._lock:
            stats = list(self._latest.values())
        seconds = sum(one.seconds_computing for one in stats)
        return sum(one.tokens_computed for one in stats) / seconds if seconds else 1.0

    def stats(self, running: int, waiting: int, scores: CacheStats) -> EngineStats:
        """The sum over all replicas, with the queue and the score cache of the front."""
        with self._lock:
            latest = list(self._latest.values())
        return self._front.stats(running, waiting, scores).with_work_of(latest)
