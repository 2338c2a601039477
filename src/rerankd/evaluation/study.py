"""Everything that `rerankd eval` reports about some runs and their judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rerankd.errors import InvalidRequest
from rerankd.evaluation.depth import DEPTHS, ByQuery, DepthStudy, Fusion, Ranked, depth_study, fusion_study
from rerankd.evaluation.measures import Coverage, Measures, Quality, coverage
from rerankd.evaluation.scores import Scores, scores_of
from rerankd.evaluation.significance import Paired, holm, paired
from rerankd.runs.about import About
from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Run

EXTREMES = 10
"""Queries shown that gained most, and that lost most."""

MOVES = 5
"""Documents shown of such a query."""


@dataclass(frozen=True, slots=True)
class Move:
    """A document that changed its rank.

    Attributes:
        grade: None for an unjudged document.
        before, after: ranks from 1; None where a run lacks the document.
    """

    doc_id: str
    grade: int | None
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class QueryChange:
    """A query whose value of the first measure changed."""

    qid: str
    text: str
    before: float
    after: float
    moves: Sequence[Move]


@dataclass(frozen=True, slots=True)
class Compared:
    """A run beside the baseline.

    Attributes:
        paired: by measure.
        sorted_differences: of the first measure by query, the largest gain first.
        depths: None where the run holds documents that the baseline lacks: it reranks another first stage.
        gained, lost: the queries that changed most.
    """

    paired: Mapping[str, Paired]
    sorted_differences: Sequence[float]
    depths: DepthStudy | None
    fusion: Sequence[Fusion]
    gained: Sequence[QueryChange]
    lost: Sequence[QueryChange]


@dataclass(frozen=True, slots=True)
class Made:
    """How a run was made.

    Attributes:
        dtype, prompt: empty where a server scored.
        instruct: None for the default.
        seconds: of scoring a query, in the mean over a run in which several queries share batches.
        tokens: of all prompts; 0 where a server scored.
    """

    model: str
    dtype: str
    prompt: str
    instruct: str | None
    depth: int
    seconds: float
    documents_per_second: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One run.

    Attributes:
        compared: None for the baseline.
        scores: of its pairs; None where they are no logits.
        made: None where it is unknown.
    """

    name: str
    coverage: Coverage
    means: Mapping[str, float]
    compared: Compared | None
    scores: Scores | None
    made: Made | None


@dataclass(frozen=True, slots=True)
class Study:
    """All runs, the baseline first."""

    measures: Sequence[str]
    queries: int
    runs: Sequence[Evaluated]

    @property
    def baseline(self) -> Evaluated:
        return self.runs[0]


def study(
    runs: Sequence[Run],
    judgements: Judgements,
    measures: Measures,
    texts: Mapping[str, str] | None = None,
    depths: Sequence[int] = DEPTHS,
    abouts: Sequence[About | None] = (),
) -> Study:
    """Evaluates runs, the first of which is the baseline of the others.

    Args:
        texts: of queries, for the report.
        abouts: how each run was made; empty where nothing is known.

    Raises:
        InvalidRequest: two runs have one name, or a run has no judged query.
    """
    names = [run.name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(f"Two runs are named {repeated[0]}: rename a file.")
    for run in runs:
        if not run.ranked.keys() & judgements.keys():
            raise InvalidRequest(f"No query of {run.name} has judgements: are these the right files?")
    qualities = [measures.evaluate(run.ranked, judgements) for run in runs]
    compared: list[Compared | None] = [None]
    for run, quality in zip(runs[1:], qualities[1:], strict=True):
        compared.append(_compare(runs[0], run, qualities[0], quality, judgements, measures, texts or {}, depths))
    evaluated = [
        Evaluated(run.name, coverage(run, judgements), quality.means, beside, scores_of(run, judgements), _made(about))
        for run, quality, beside, about in zip(
            runs, qualities, _corrected(compared), abouts or [None] * len(runs), strict=True
        )
    ]
    return Study(measures.names, len(judgements), evaluated)


def _compare(
    baseline: Run,
    run: Run,
    before: Quality,
    after: Quality,
    judgements: Judgements,
    measures: Measures,
    texts: Mapping[str, str],
    depths: Sequence[int],
) -> Compared:
    first = measures.names[0]
    differences = {qid: after.by_query[first][qid] - value for qid, value in before.by_query[first].items()}
    by_gain = sorted(differences, key=lambda qid: (-differences[qid], qid))
    change = _Changes(baseline, run, before.by_query[first], after.by_query[first], judgements, texts)
    reranks = all(
        {one.doc_id for one in found} <= {one.doc_id for one in baseline.ranked.get(qid, ())}
        for qid, found in run.ranked.items()
    )

    def by_query(ranked: Ranked) -> Mapping[str, float]:
        return measures.evaluate(ranked, judgements).by_query[first]

    measure: ByQuery = by_query
    return Compared(
        paired={name: paired(before.by_query[name], after.by_query[name]) for name in measures.names},
        sorted_differences=[differences[qid] for qid in by_gain],
        depths=depth_study(baseline.ranked, run.ranked, depths, measure) if reranks else None,
        fusion=fusion_study(baseline.ranked, run.ranked, measure) if reranks else [],
        gained=[change.of(qid) for qid in by_gain[:EXTREMES] if differences[qid] > 0],
        lost=[change.of(qid) for qid in by_gain[: -EXTREMES - 1 : -1] if differences[qid] < 0],
    )


def _corrected(compared: Sequence[Compared | None]) -> list[Compared | None]:
    """With p corrected for the number of runs that are compared with the baseline, measure by measure."""
    tested = [one for one in compared if one is not None]
    names = list(tested[0].paired) if tested else []
    by_name = {name: holm([one.paired[name].p_randomisation for one in tested]) for name in names}
    corrected = iter(
        replace(one, paired={name: replace(one.paired[name], p_holm=by_name[name][place]) for name in names})
        for place, one in enumerate(tested)
    )
    return [None if one is None else next(corrected) for one in compared]


@dataclass(frozen=True, slots=True)
class _Changes:
    """What changed for a query between two runs."""

    baseline: Run
    run: Run
    before: Mapping[str, float]
    after: Mapping[str, float]
    judgements: Judgements
    texts: Mapping[str, str]

    def of(self, qid: str) -> QueryChange:
        ranks = [
            {one.doc_id: rank for rank, one in enumerate(run.ranked.get(qid, ()), 1)}
            for run in (self.baseline, self.run)
        ]
        grades = self.judgements[qid]
        moves = [
            Move(doc_id, grades.get(doc_id), ranks[0].get(doc_id), ranks[1].get(doc_id))
            for doc_id in dict.fromkeys([*list(ranks[1])[:MOVES], *list(ranks[0])[:MOVES], *_relevant(grades)])
        ]
        moved = [move for move in moves if move.before != move.after and (move.before or move.after)]
        moved.sort(key=lambda move: (-(move.grade or 0), min(move.before or 10**9, move.after or 10**9)))
        return QueryChange(qid, self.texts.get(qid, ""), self.before[qid], self.after[qid], moved[:MOVES])


def _relevant(grades: Mapping[str, int]) -> list[str]:
    return [doc_id for doc_id, grade in grades.items() if grade > 0]


def _made(about: About | None) -> Made | None:
    if about is None or not about.queries:
        return None
    model, seconds = about.model, max(about.seconds, 1e-9)
    return Made(
        model["name"],
        model.get("dtype", ""),
        model.get("prompt", ""),
        about.instruct,
        int(about.plan["depth"]),
        about.seconds / about.queries,
        about.documents / seconds,
        about.tokens,
    )
