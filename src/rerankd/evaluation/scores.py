"""How well a run's logits fit relevance: as probabilities, and as a separation of the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rerankd.runs.judgements import Judgements, judges_irrelevant
from rerankd.runs.run import Run

BINS = 10
STEPS = 24

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Pairs whose probability of "yes" falls into a tenth: how many, their mean probability, and the relevant share."""

    count: int
    probability: float
    relevant: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Logits in equal steps: the edges, one more than steps; and of each kind of pair the share in each step."""

    edges: Sequence[float]
    relevant: Sequence[float]
    irrelevant: Sequence[float]


@dataclass(frozen=True, slots=True)
class Scores:
    """The logits of pairs whose relevance is known.

    Attributes:
        bins: of sigmoid(logit), in tenths.
        ece: the expected calibration error over these bins, in [0, 1].
        histogram: None where all pairs are of one kind, or have one logit.
    """

    pairs: int
    bins: Sequence[Bin]
    ece: float
    histogram: Histogram | None


def scores_of(run: Run, judgements: Judgements) -> Scores | None:
    """The logits of a run beside its judgements; None where its scores are not logits or no pair is judged.

    Pairs without a judgement are left out, or count as irrelevant where the judgements name relevant documents only.
    """
    if not run.has_logits:
        return None
    all_count = not judges_irrelevant(judgements)
    pairs = [
        (one.score, judgements[qid].get(one.doc_id, 0) > 0)
        for qid, found in run.ranked.items()
        if qid in judgements
        for one in found
        if all_count or one.doc_id in judgements[qid]
    ]
    if not pairs:
        return None
    logits = np.array([logit for logit, _ in pairs])
    relevant = np.array([is_relevant for _, is_relevant in pairs])
    bins = _bins(np.exp(-np.logaddexp(0, -logits)), relevant)
    ece = sum(one.count * abs(one.probability - one.relevant) for one in bins) / len(pairs)
    return Scores(len(pairs), bins, ece, _histogram(logits, relevant))


def _bins(probabilities: Values, relevant: npt.NDArray[np.bool_]) -> list[Bin]:
    tenths = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return [
        Bin(int(inside.sum()), float(probabilities[inside].mean()), float(relevant[inside].mean()))
        if (inside := tenths == tenth).any()
        else Bin(0, (tenth + 0.5) / BINS, 0.0)
        for tenth in range(BINS)
    ]


def _histogram(logits: Values, relevant: npt.NDArray[np.bool_]) -> Histogram | None:
    if relevant.all() or not relevant.any() or logits.min() == logits.max():
        return None
    edges = np.linspace(logits.min(), logits.max(), STEPS + 1)
    shares = [np.histogram(logits[kind], edges)[0] / kind.sum() for kind in (relevant, ~relevant)]
    return Histogram(edges.tolist(), shares[0].tolist(), shares[1].tolist())
