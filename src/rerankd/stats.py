"""The counts of caches and engines, and their sums. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The counts of a cache since its creation. tokens: those that it saved. bytes: its size now."""

    hits: int = 0
    misses: int = 0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: CacheStats) -> CacheStats:
        """The sums of both caches."""
        return CacheStats(
            self.hits + other.hits, self.misses + other.misses, self.tokens + other.tokens, self.bytes + other.bytes
        )


@dataclass(frozen=True, slots=True)
class Histogram:
    """How values are spread. counts: of those <= bounds[i] and over the bound before; the last bound is infinite.

    total: the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of all values of both, which have the same bounds."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.bounds, counts, self.total + other.total)


@dataclass(frozen=True, slots=True)
class ReplicaStats:
    """The replicas of an engine. running: those that can be asked now. lost_parts: parts of calls that were sent, and
    not answered because their replica ended; each was sent again, two times at most. refuses: none has run for so long
    that calls are refused.
    """

    running: int
    lost_parts: int
    refuses: bool


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The counts of an engine since its start, its known-answer check included.

    running: requests of which at least one prompt is, or was, in a batch; waiting: the others in the queue.
    tokens_computed, seconds_computing: of the batches that are done. batch_fill: of each of them, its tokens over the
    most that a batch may have; more than 1 where a single prompt is longer. queue_s: of each request, from its arrival
    to its first batch; those whose every logit was known are not in it. replicas: None of an engine that computes by
    itself.
    """

    running: int
    waiting: int
    tokens_computed: int
    seconds_computing: float
    batch_fill: Histogram
    queue_s: Histogram
    prefix_cache: CacheStats
    score_cache: CacheStats
    replicas: ReplicaStats | None = None

    def with_work_of(self, others: Iterable[EngineStats]) -> EngineStats:
        """The same queue and score cache, with what other engines have computed."""
        total = self
        for other in others:
            total = replace(
                total,
                tokens_computed=total.tokens_computed + other.tokens_computed,
                seconds_computing=total.seconds_computing + other.seconds_computing,
                batch_fill=total.batch_fill + other.batch_fill,
                prefix_cache=total.prefix_cache + other.prefix_cache,
            )
        return total
