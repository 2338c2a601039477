"""How many candidates are worth reranking, and whether the first stage's scores still help. Scores nothing again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rerankd.evaluation.significance import interval
from rerankd.runs.run import Candidate

DEPTHS = (5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
ALPHAS = tuple(step / 10 for step in range(11))
NEARLY_BEST = 0.99

Ranked = Mapping[str, Sequence[Candidate]]
ByQuery = Callable[[Ranked], Mapping[str, float]]
"""A measure: ranking → query id → value."""


@dataclass(frozen=True, slots=True)
class DepthPoint:
    """The measure with the first `depth` candidates reranked.

    Attributes:
        low, high: the 95 % interval of the mean, by bootstrap over queries.
        tokens: of the prompts that this depth scores; 0 where the run does not say.
    """

    depth: int
    mean: float
    low: float
    high: float
    tokens: int


@dataclass(frozen=True, slots=True)
class DepthStudy:
    """The measure by depth.

    Attributes:
        enough: the least depth within 1 % of the best one, chosen on one half of the queries.
        held_out: the measure at that depth on the other half.
    """

    points: Sequence[DepthPoint]
    enough: int
    held_out: float


@dataclass(frozen=True, slots=True)
class Fusion:
    """The measure of α · logit + (1 − α) · first-stage score, both standardised within a query."""

    alpha: float
    mean: float


def depth_study(first: Ranked, scored: Ranked, depths: Iterable[int], measure: ByQuery) -> DepthStudy:
    """Reranks the first `depth` candidates of the first stage by their scores, for each depth.

    Depths over the longest list are one: all. The result is that of a run of its own at each depth: a score depends
    on its query and its document only.
    """
    longest = max(map(len, first.values()))
    used = sorted({min(depth, longest) for depth in depths} | {0})
    values = {depth: measure(reranked(first, scored, depth)) for depth in used}
    points = [_point(depth, values[depth], scored, first) for depth in used]
    queries = sorted(values[0])
    chosen, kept = queries[::2], queries[1::2] or queries
    means = {depth: _mean(values[depth], chosen) for depth in used}
    enough = min(depth for depth in used if means[depth] >= NEARLY_BEST * max(means.values()))
    return DepthStudy(points, enough, _mean(values[enough], kept))


def _point(depth: int, values: Mapping[str, float], scored: Ranked, first: Ranked) -> DepthPoint:
    given = np.array(list(values.values()))
    low, high = interval(given)
    tokens = {qid: {one.doc_id: one.tokens for one in found} for qid, found in scored.items()}
    spent = sum(tokens.get(qid, {}).get(one.doc_id, 0) for qid, found in first.items() for one in found[:depth])
    return DepthPoint(depth, float(given.mean()), low, high, spent)


def _mean(values: Mapping[str, float], queries: Sequence[str]) -> float:
    return sum(values[qid] for qid in queries) / len(queries)


def reranked(first: Ranked, scored: Ranked, depth: int) -> dict[str, list[Candidate]]:
    """The first `depth` candidates in the scored order, then those that were not scored, then the rest as it was."""
    result: dict[str, list[Candidate]] = {}
    for qid, found in first.items():
        place = {one.doc_id: place for place, one in enumerate(scored.get(qid, ()))}
        head = sorted(found[:depth], key=lambda one: place.get(one.doc_id, len(place)))
        result[qid] = [*head, *found[depth:]]
    return result


def fusion_study(first: Ranked, scored: Ranked, measure: ByQuery, alphas: Iterable[float] = ALPHAS) -> list[Fusion]:
    """Mixes both scores of the candidates that both runs have; other candidates follow in the first stage's order."""
    result = []
    for alpha in alphas:
        values = measure({qid: _fused(found, scored.get(qid, ()), alpha) for qid, found in first.items()})
        result.append(Fusion(alpha, float(np.mean(list(values.values())))))
    return result


def _fused(first: Sequence[Candidate], scored: Sequence[Candidate], alpha: float) -> list[Candidate]:
    logits = {one.doc_id: one.score for one in scored}
    both = [one for one in first if one.doc_id in logits]
    mixed = alpha * _standard([logits[one.doc_id] for one in both]) + (1 - alpha) * _standard([o.score for o in both])
    order = np.argsort(-mixed, kind="stable")
    return [both[i] for i in order] + [one for one in first if one.doc_id not in logits]


def _standard(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.asarray(values, dtype=np.float64)
    deviation = array.std() if len(array) else 0.0
    return (array - array.mean()) / deviation if deviation else np.zeros(len(array))
