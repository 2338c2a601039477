"""How the logits of a document's passages become its logit: what another way would give. Scores nothing again.

MaxP and FirstP: Dai and Callan, SIGIR 2019 (https://doi.org/10.1145/3331184.3331303). Where relevant passages stand
early, as in many test collections, the first passage alone does well (Boytsov et al., arXiv:2207.01262).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rerankd.evaluation.depth import ByQuery, Ranked
from rerankd.evaluation.significance import Paired, holm, paired
from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Candidate

BEST_OF = 3

Logits = Sequence[float]


def _first(logits: Logits) -> float:
    return logits[0]


def _mean_of_best(logits: Logits) -> float:
    best = sorted(logits, reverse=True)[:BEST_OF]
    return sum(best) / len(best)


def _sum_of_odds(logits: Logits) -> float:
    """log Σ e^logit, without an overflow."""
    most = max(logits)
    return most if math.isinf(most) else most + math.log(sum(math.exp(logit - most) for logit in logits))


AGGREGATES: Mapping[str, Callable[[Logits], float]] = {
    "best passage (MaxP)": max,
    "first passage (FirstP)": _first,
    f"mean of the best {BEST_OF}": _mean_of_best,
    "sum of the odds": _sum_of_odds,
}
"""The first one is that of the run."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The measure with one way. paired: against the run's own way; None for that one."""

    name: str
    mean: float
    paired: Paired | None


@dataclass(frozen=True, slots=True)
class AggregateStudy:
    """The measure by the way in which passages become a score.

    Attributes:
        documents: of the run. split: those of them that have several passages.
        relevant: those of the split ones that are judged relevant.
        later: those of the relevant ones whose best passage is not the first. Where they are few, the judgements
            say little about passages.
    """

    aggregates: Sequence[Aggregate]
    documents: int
    split: int
    relevant: int
    later: int


def aggregate_study(ranked: Ranked, judgements: Judgements, measure: ByQuery) -> AggregateStudy | None:
    """Ranks the documents of a run in each way; None where no document has several passages."""
    pairs = [(qid, one) for qid, found in ranked.items() for one in found]
    split = [(qid, one) for qid, one in pairs if len(one.passages) > 1]
    if not split:
        return None
    relevant = [one for qid, one in split if judgements.get(qid, {}).get(one.doc_id, 0) > 0]
    later = sum(max(one.passages) > one.passages[0] for one in relevant)
    return AggregateStudy(_compared(ranked, measure), len(pairs), len(split), len(relevant), later)


def _compared(ranked: Ranked, measure: ByQuery) -> list[Aggregate]:
    own, *others = AGGREGATES
    values = {name: measure(aggregated(ranked, way)) for name, way in AGGREGATES.items()}
    tests = [paired(values[own], values[name]) for name in others]
    corrected = holm([test.p_randomisation for test in tests])
    beside = [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]
    means = {name: sum(found.values()) / len(found) for name, found in values.items()}
    return [Aggregate(name, means[name], test) for name, test in zip(AGGREGATES, [None, *beside], strict=True)]


def aggregated(ranked: Ranked, way: Callable[[Logits], float]) -> dict[str, list[Candidate]]:
    """The documents of each query by their passages' logits, ties as in the run."""
    return {qid: sorted(found, key=lambda one: -way(one.passages or (one.score,))) for qid, found in ranked.items()}
