"""The order in which a search shows what was found and ranked. Knows places and names, no model and no index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

RANK_CONSTANT = 60
"""Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009 (https://doi.org/10.1145/1571941.1572114)."""

Item = TypeVar("Item", bound=Hashable)

SMALL_MODELS = "embedded"
"""How the names of the models begin whose order is mixed with that of the first stage."""


def shown_order(ranked: Sequence[int], paths: Sequence[str], model: str) -> list[int]:
    """The places of parts in the order in which they are shown.

    The best part of each file comes first, so that one long file does not hide the others; its further parts follow
    behind all files. The embedded model knows the meaning of words better than their weight, BM25 the other way
    around, so where it ranks, the sum of 1 / (60 + rank) of both orders decides. A reranker decides alone.

    Args:
        ranked: places in the first stage's order, best first by the model.
        paths: of each place's file, or a name for its record.
        model: the name of the model that ranked.
    """
    return files_first(mixed(ranked) if model.startswith(SMALL_MODELS) else ranked, paths)


def mixed(ranked: Sequence[int]) -> list[int]:
    """The model's order and that of the places themselves, mixed by reciprocal rank fusion; ties by the model."""
    second = {place: rank for rank, place in enumerate(ranked)}

    def score(place: int) -> float:
        return sum(1 / (RANK_CONSTANT + 1 + rank) for rank in (place, second[place]))

    return sorted(ranked, key=lambda place: -score(place))  # stable


def fused(rankings: Iterable[Sequence[Item]]) -> dict[Item, float]:
    """For each item the sum of 1 / (60 + rank) over the rankings that have it, ranks from 1."""
    scores: dict[Item, float] = defaultdict(float)
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] += 1 / (RANK_CONSTANT + rank)
    return dict(scores)


def files_first(order: Sequence[int], paths: Sequence[str]) -> list[int]:
    """The same order, but the first part of each file before all others."""
    best: dict[str, int] = {}
    for place in order:
        best.setdefault(paths[place], place)
    firsts = set(best.values())
    return [*best.values(), *(place for place in order if place not in firsts)]
