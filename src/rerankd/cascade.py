"""Two models for one call: a small one scores every document, a large one the best of them. Knows no tensor, no API."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerankd.errors import Busy
from rerankd.types import ModelInfo, Ranking, RerankRequest, Score, Usage

THEN_TOP = 30
"""Documents for the second model by default."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The documents of a call that the second model scores.

    Attributes:
        indices: of them in the call, best first by the first model.
        request: of these documents alone.
    """

    indices: tuple[int, ...]
    request: RerankRequest


def choose(request: RerankRequest, first: Ranking, top: int) -> Chosen:
    """The best documents of the first model, ties by index."""
    best = _sorted([score for score in first.scores if score.scored])
    indices = tuple(score.index for score in best[:top])
    queries = request.queries if len(request.queries) == 1 else tuple(request.queries[index] for index in indices)
    documents = tuple(request.documents[index] for index in indices)
    return Chosen(indices, replace(request, queries=queries, documents=documents, top_n=None))


def merge(
    first: Ranking, chosen: Chosen, then: Ranking, infos: tuple[ModelInfo, ModelInfo], top_n: int | None
) -> Ranking:
    """The ranking of both models: those that the second one scored, then the others in the order of the first one.

    Callers sort by score, and the scores of two models are not comparable: a document that only the first model scored
    comes under the lowest score of the second one, whatever its own. Its logit stays as it is.

    Args:
        first: over all documents.
        then: over the chosen ones.
        infos: the two models.
    """
    scored = _sorted([score for score in then.scores if score.scored])
    second = [replace(score, index=chosen.indices[score.index], stage=2, model=infos[1]) for score in scored]
    bound, limit = (
        min((score.raw_score for score in second), default=math.inf),
        min((s.score for s in second), default=1.0),
    )
    rest = []
    taken = {score.index for score in second}
    for score in _sorted([score for score in first.scores if score.index not in taken]):
        bound = min(score.raw_score, math.nextafter(bound, -math.inf))
        limit = min(score.score, limit)
        rest.append(replace(score, score=limit, bound=bound, stage=1, model=infos[0]))
    ranked = (*second, *rest)
    own = [warning for warning in then.warnings if warning not in first.warnings]
    return replace(
        first,
        ranked=ranked[:top_n],
        usage=_sum(first.usage, then.usage),
        warnings=(*first.warnings, *(f"{infos[1].name}: {warning}" for warning in own)),
        model=infos[1].name if second else infos[0].name,
        scores=tuple(sorted(ranked, key=lambda score: score.index)),
    )


ONE_MODEL = "cascade ignored: one model scores the sentences"
"""The warning of a call with highlighting."""


def failed(first: Ranking, infos: tuple[ModelInfo, ModelInfo], error: Exception) -> Ranking:
    """The ranking of the first model, where the second one failed."""
    return replace(first, warnings=(*first.warnings, alone(infos[1], error, infos[0])))


def alone(lost: ModelInfo, error: Exception, left: ModelInfo) -> str:
    """The warning of a call in which one of two models failed."""
    what = "scored nothing in time" if isinstance(error, Busy) else f"failed ({type(error).__name__})"
    return f"{lost.name} {what}: {left.name} alone scored"


def _sorted(scores: Sequence[Score]) -> list[Score]:
    return sorted(scores, key=lambda score: (-score.raw_score, score.index))


def _sum(first: Usage, then: Usage) -> Usage:
    def total(one: int | None, other: int | None) -> int | None:
        return None if one is None or other is None else one + other

    return replace(
        first,
        total_tokens=total(first.total_tokens, then.total_tokens),
        text_tokens=total(first.text_tokens, then.text_tokens),
    )
