"""Compares the rankings of two runs of a model: drift, order, quality. Knows no file and no dtype."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from statistics import fmean

from rerankd.arguments import checked
from rerankd.errors import InferenceError, InvalidRequest
from rerankd.ranking import Submits
from rerankd.types import DEFAULT_INSTRUCT, Passages, Ranking

TOP_KS = (1, 3, 10)
QUERIES_AT_ONCE = 16
"""Enough that small queries fill a batch together."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its candidates. source: its file and line; relevance: a grade >= 0 for each document, if judged."""

    source: str
    text: str
    documents: tuple[str, ...]
    relevance: tuple[float, ...] | None = None
    instruct: str = DEFAULT_INSTRUCT


@dataclass(frozen=True, slots=True)
class Drift:
    """Absolute differences over all pairs; `p95` by nearest rank."""

    mean: float
    p95: float
    largest: float


@dataclass(frozen=True, slots=True)
class Changed:
    """How many queries changed, of those that could change."""

    queries: int
    of: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A measure of quality in the reference run and in the candidate's."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate run beside a reference run of the same queries.

    kendall_tau: mean of tau-b over the queries that have one, in [-1, 1]. top: k → the queries whose first k documents
    are others, whatever their order, of those with more than k documents; only for k that some query exceeds.
    ndcg_at_10: means over the queries that have a relevant document, in [0, 1]; None if there is no such query.
    """

    score: Drift
    logit: Drift
    kendall_tau: float | None
    top: Mapping[int, Changed]
    ndcg_at_10: Moved | None


def rank_all(
    scorer: Submits,
    queries: Sequence[Query],
    progress: Callable[[int], None] = lambda done: None,
    passages: Passages | None = None,
) -> list[Ranking]:
    """One ranking a query, in order.

    Args:
        progress: called with the number of queries done.
        passages: how documents are split; None: they are not.

    Raises:
        InvalidRequest: a query cannot be asked; the message begins with its source.
        InferenceError: the model failed on a query, or gave it a score that is not a number; the same.
    """
    calls = (_Call(scorer, query, passages) for query in queries)
    waiting = deque(islice(calls, QUERIES_AT_ONCE))
    rankings: list[Ranking] = []
    try:
        while waiting:
            rankings.append(waiting[0].ranking())
            waiting.popleft()
            waiting.extend(islice(calls, 1))
            progress(len(rankings))
    finally:  # after an error or Ctrl-C nobody wants the rest
        for call in waiting:
            call.future.cancel()
    return rankings


class _Call:
    """A query that waits for its logits."""

    def __init__(self, scorer: Submits, query: Query, passages: Passages | None) -> None:
        self._source = query.source
        with _named(query.source):
            asked = checked(query.text, query.documents, instruct=query.instruct, passages=passages)
            self._warnings = asked.warnings
            self._prepared = scorer.prepare(asked.request())
        self.future = scorer.submit(self._prepared)

    def ranking(self) -> Ranking:
        with _named(self._source):
            return self._prepared.finish(self.future.result(), self._warnings)


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Errors say which query they are about."""
    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(f"{source}: {error}") from error
    except InferenceError as error:
        raise InferenceError(f"{source}: {error}") from error


def compare(queries: Sequence[Query], reference: Sequence[Ranking], candidate: Sequence[Ranking]) -> Comparison:
    """Compares two runs of the same queries, at least one; `rank_all` makes them."""
    runs = list(zip(reference, candidate, strict=True))
    scores = [pair for a, b in runs for pair in zip(a.scores, b.scores, strict=True)]
    before, after = _mean_ndcg(queries, reference), _mean_ndcg(queries, candidate)
    return Comparison(
        score=_drift([abs(a.score - b.score) for a, b in scores]),
        logit=_drift([abs(a.raw_score - b.raw_score) for a, b in scores]),
        kendall_tau=_mean([kendall_tau(_logits(a), _logits(b)) for a, b in runs]),
        top={k: _changed(long, k) for k in TOP_KS if (long := [run for run in runs if len(run[0].ranked) > k])},
        ndcg_at_10=None if before is None or after is None else Moved(before, after),
    )


def _changed(runs: Sequence[tuple[Ranking, Ranking]], k: int) -> Changed:
    return Changed(sum(_first(a, k) != _first(b, k) for a, b in runs), len(runs))


def _logits(ranking: Ranking) -> list[float]:
    return [score.raw_score for score in ranking.scores]


def _first(ranking: Ranking, k: int) -> set[int]:
    return {score.index for score in ranking.ranked[:k]}


def _drift(differences: Sequence[float]) -> Drift:
    p95 = sorted(differences)[math.ceil(95 * len(differences) / 100) - 1]
    return Drift(fmean(differences), p95, max(differences))


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean of the known values; None if no value is known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two lists of values for the same things, in [-1, 1]; None if all values of a list are equal.

    Of the pairs of things, those in the same order less those in opposite order, over the geometric mean of the pairs
    that are not tied in a and those that are not tied in b (Kendall 1945, The treatment of ties in ranking problems).
    """
    signs = [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for i, j in combinations(range(len(a)), 2)]
    untied_a, untied_b = sum(x != 0 for x, _ in signs), sum(y != 0 for _, y in signs)
    if not untied_a or not untied_b:
        return None
    return sum(x * y for x, y in signs) / math.sqrt(untied_a * untied_b)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _mean_ndcg(queries: Sequence[Query], rankings: Sequence[Ranking], k: int = 10) -> float | None:
    judged = [(q.relevance, r.ranked) for q, r in zip(queries, rankings, strict=True) if q.relevance is not None]
    return _mean([ndcg([relevance[score.index] for score in ranked], k) for relevance, ranked in judged])


def ndcg(relevance: Sequence[float], k: int) -> float | None:
    """nDCG@k of all documents' grades in ranked order, with the grade as gain and discount log2(place + 1).

    Järvelin, Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques; the nDCG of trec_eval, BEIR, MTEB and
    `rerankd eval`. None where no document is relevant.
    """
    best = _dcg(sorted(relevance, reverse=True)[:k])
    return _dcg(relevance[:k]) / best if best else None


def _dcg(relevance: Sequence[float]) -> float:
    return sum(max(grade, 0.0) / math.log2(place + 1) for place, grade in enumerate(relevance, 1))
