"""Measures of a run, calculated by ir_measures (Terrier; https://ir-measur.es), as trec_eval calculates them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Candidate, Run

DEFAULT_MEASURES = ("nDCG@10", "RR@10", "R@100", "Judged@10")

Ranked = Mapping[str, Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class Quality:
    """The measures of one run.

    Attributes:
        means: measure → its mean over all judged queries; a judged query that the run lacks counts as 0.
        by_query: measure → query id → value, for all judged queries.
    """

    means: Mapping[str, float]
    by_query: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How run and judgements fit together.

    Attributes:
        judged: queries with judgements; the means are over these.
        missing: those of them that the run lacks.
        unjudged: queries of the run without judgements; they count nowhere.
        own: candidates whose id is their query's. BEIR's evaluation drops them.
    """

    judged: int
    missing: int
    unjudged: int
    own: int


class Measures:
    """Calculates some measures.

    Args:
        names: as ir_measures writes them, such as `nDCG@10`, `RR@10`, `AP(rel=2)@100`.

    Raises:
        InvalidRequest: a name is unknown, or cannot be calculated here.
        MissingExtra: ir_measures is not installed.
    """

    def __init__(self, names: Sequence[str] = DEFAULT_MEASURES) -> None:
        self._library = _library()
        self._measures = [self._measure(name) for name in dict.fromkeys(names)]
        if not self._measures:
            raise InvalidRequest("Name at least one measure, such as nDCG@10.")
        self.names = tuple(str(measure) for measure in self._measures)

    def _measure(self, name: str) -> Any:
        try:
            measure = self._library.parse_measure(name)
            measure.validate_params()
        except (NameError, ValueError, SyntaxError, TypeError, KeyError) as error:
            raise InvalidRequest(f"{name!r} is not a measure of ir_measures: {error}. Examples: nDCG@10, AP.") from None
        if measure.NAME == "nDCG" and measure["dcg"] == "exp-log2":
            # Its provider is a Perl script that takes only numbers as ids.
            raise InvalidRequest(f"{name} cannot be calculated: nDCG with linear gain, as in trec_eval, can.")
        if not any(p.is_available() and p.supports(measure) for p in self._library.DefaultPipeline.providers):
            raise InvalidRequest(f"{name} cannot be calculated here: no installed package calculates it.")
        return measure

    def evaluate(self, ranked: Ranked, judgements: Judgements) -> Quality:
        """The measures of a ranking, in the order in which it is given."""
        run = {qid: _scores(candidates) for qid, candidates in ranked.items()}
        found = self._library.calc(self._measures, judgements, run)
        by_query: dict[str, dict[str, float]] = {name: {} for name in self.names}
        for metric in found.per_query:
            by_query[str(metric.measure)][metric.query_id] = float(metric.value)
        return Quality({str(measure): float(value) for measure, value in found.aggregated.items()}, by_query)

    def of_first(self, judgements: Judgements) -> Callable[[Ranked], Mapping[str, float]]:
        """The first measure of a ranking, by query."""
        return lambda ranked: self.evaluate(ranked, judgements).by_query[self.names[0]]


def _library() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra("Evaluation", error, "evaluate the run with another program", "eval") from None
    return ir_measures


def _scores(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Scores that no evaluator can read in another order: they break ties differently, and read 32 bits."""
    return {candidate.doc_id: float(len(candidates) - place) for place, candidate in enumerate(candidates)}


def coverage(run: Run, judgements: Judgements) -> Coverage:
    """Counts what run and judgements have in common."""
    return Coverage(
        judged=len(judgements),
        missing=sum(qid not in run.ranked for qid in judgements),
        unjudged=sum(qid not in judgements for qid in run.ranked),
        own=sum(candidate.doc_id == qid for qid, found in run.ranked.items() for candidate in found),
    )


def without_own(run: Run) -> Run:
    """The run without candidates whose id is their query's, as BEIR evaluates ArguAna and Quora."""
    ranked = {qid: tuple(one for one in found if one.doc_id != qid) for qid, found in run.ranked.items()}
    return Run(run.name, ranked, run.has_logits)
