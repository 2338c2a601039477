"""Everything that `rerankd eval` reports about some runs and their judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rerankd.errors import InvalidRequest
from rerankd.evaluation.aggregates import AggregateStudy, aggregate_study
from rerankd.evaluation.changes import Changes, QueryChange
from rerankd.evaluation.depth import DEPTHS, DepthStudy, Fusion, depth_study, fusion_study
from rerankd.evaluation.made import Made, PriceOf, made
from rerankd.evaluation.measures import Coverage, Measures, Quality, coverage
from rerankd.evaluation.scores import Scores, scores_of
from rerankd.evaluation.significance import Paired, holm, paired
from rerankd.runs.about import About
from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Run

EXTREMES = 10
"""Queries shown that gained most, and that lost most."""


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
class Evaluated:
    """One run.

    Attributes:
        compared: None for the baseline.
        scores: of its pairs; None where they are not logits.
        made: None where it is unknown.
        aggregates: None where no document has several passages.
    """

    name: str
    coverage: Coverage
    means: Mapping[str, float]
    compared: Compared | None
    scores: Scores | None
    made: Made | None
    aggregates: AggregateStudy | None


@dataclass(frozen=True, slots=True)
class Study:
    """All runs, the baseline first. currency: of costs; empty without prices."""

    measures: Sequence[str]
    queries: int
    runs: Sequence[Evaluated]
    currency: str = ""

    @property
    def baseline(self) -> Evaluated:
        return self.runs[0]

    @property
    def shown_documents(self) -> set[str]:
        """The ids of the documents that moved in the queries that changed most."""
        compared = [run.compared for run in self.runs if run.compared is not None]
        changes = [change for one in compared for change in (*one.gained, *one.lost)]
        return {move.doc_id for change in changes for move in change.moves}


def study(
    runs: Sequence[Run],
    judgements: Judgements,
    measures: Measures,
    texts: Mapping[str, str] | None = None,
    depths: Sequence[int] = DEPTHS,
    abouts: Sequence[About | None] = (),
    price_of: PriceOf = lambda model: None,
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
        Evaluated(
            run.name,
            coverage(run, judgements),
            quality.means,
            beside,
            scores_of(run, judgements),
            made(about, price_of),
            aggregate_study(run.ranked, judgements, measures.of_first(judgements)),
        )
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
    first, measure = measures.names[0], measures.of_first(judgements)
    differences = {qid: after.by_query[first][qid] - value for qid, value in before.by_query[first].items()}
    by_gain = sorted(differences, key=lambda qid: (-differences[qid], qid))
    change = Changes(baseline, run, before.by_query[first], after.by_query[first], judgements, texts)
    reranks = all(
        {one.doc_id for one in found} <= {one.doc_id for one in baseline.ranked.get(qid, ())}
        for qid, found in run.ranked.items()
    )
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
