"""Chooses the next upstream. Pure: the caller passes the chance in.

Of two upstreams, picked by weight, the one with less outstanding work for its weight is asked (the power of two
choices). The first of the two is always the same for one query, so that its caches are warm; the second is random.
Work is counted in tokens: rerank calls differ a hundredfold in size.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """An upstream that may be asked now.

    Attributes:
        tier: the lowest one is asked.
        weight: its share within the tier, > 0.
        outstanding: tokens of the calls that it works on.
    """

    name: str
    tier: int
    weight: float
    outstanding: int


def choose(candidates: Sequence[Candidate], key: bytes, chance: Callable[[], float]) -> Candidate:
    """The next upstream.

    Args:
        candidates: at least one.
        key: the same for calls that share a cached prefix.
        chance: a number in [0, 1).
    """
    tier = min(one.tier for one in candidates)
    lowest = [one for one in candidates if one.tier == tier]
    first = min(lowest, key=lambda one: _distance(key, one))
    others = [one for one in lowest if one is not first]
    if not others:
        return first
    second = _by_weight(others, chance())
    return min((first, second), key=lambda one: one.outstanding / one.weight)  # of equals the first


def _distance(key: bytes, candidate: Candidate) -> float:
    """Weighted rendezvous hashing: over all keys, the smallest is each one's in proportion to its weight."""
    digest = hashlib.blake2b(key, digest_size=8, person=b"rerankd", salt=_salt(candidate.name)).digest()
    share = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(share) / candidate.weight


def _salt(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def _by_weight(candidates: Sequence[Candidate], chance: float) -> Candidate:
    left = chance * sum(one.weight for one in candidates)
    for one in candidates:
        left -= one.weight
        if left < 0:
            return one
    return candidates[-1]
