"""How long calls took, as counts by class of time, from which percentiles are read. Knows no database.

The classes are those of an HDR histogram (https://hdrhistogram.github.io/HdrHistogram/): each millisecond below 64 has
its own; from there on, each doubling has 32. A percentile is the end of its class: it is never below the exact one, and
at most a 32nd above it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

BITS = 5
"""Each doubling has 2**BITS classes."""

Latencies = Mapping[int, int]
"""The number of calls of each class that has any."""


def class_of(milliseconds: int) -> int:
    """The class of a time. milliseconds: >= 0."""
    shift = max(0, milliseconds.bit_length() - BITS - 1)
    return (shift << BITS) + (milliseconds >> shift)


def percentile(latencies: Latencies, percent: int) -> int | None:
    """The time, in milliseconds, that so many percent of the calls did not pass (nearest rank); None without calls."""
    rank = -(-percent * sum(latencies.values()) // 100)
    passed = 0
    for one in sorted(latencies):
        passed += latencies[one]
        if passed >= rank:
            return _end(one)
    return None


def together(several: Iterable[Latencies]) -> Latencies:
    """The calls of all of them."""
    whole: Counter[int] = Counter()
    for one in several:
        whole.update(one)
    return whole


def _end(number: int) -> int:
    """The longest time of a class, in milliseconds."""
    shift = max(0, (number >> BITS) - 1)
    return ((number - (shift << BITS) + 1) << shift) - 1
