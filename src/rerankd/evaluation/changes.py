"""The queries that a run changes most, and the documents that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Candidate, Run

MOVES = 5
"""Documents shown of a query."""


@dataclass(frozen=True, slots=True)
class Move:
    """A document that changed its rank.

    Attributes:
        grade: None for an unjudged document.
        before, after: ranks from 1; None where a run lacks the document.
        best: start and end of its best passage in the text, where the run says so.
    """

    doc_id: str
    grade: int | None
    before: int | None
    after: int | None
    best: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class QueryChange:
    """A query whose value of the first measure changed."""

    qid: str
    text: str
    before: float
    after: float
    moves: Sequence[Move]


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed for a query between two runs.

    Attributes:
        before, after: the measure of each query.
        texts: of queries.
    """

    baseline: Run
    run: Run
    before: Mapping[str, float]
    after: Mapping[str, float]
    judgements: Judgements
    texts: Mapping[str, str]

    def of(self, qid: str) -> QueryChange:
        """The documents of a query that moved, relevant ones and those at the top first."""
        first, scored = self.baseline.ranked.get(qid, ()), self.run.ranked.get(qid, ())
        before, after = _ranks(first), _ranks(scored)
        best, grades = {one.doc_id: one.best for one in scored}, self.judgements[qid]
        shown = dict.fromkeys([*list(after)[:MOVES], *list(before)[:MOVES], *_relevant(grades)])
        moves = [Move(one, grades.get(one), before.get(one), after.get(one), best.get(one)) for one in shown]
        moved = [move for move in moves if move.before != move.after and (move.before or move.after)]
        moved.sort(key=lambda move: (-(move.grade or 0), min(move.before or 10**9, move.after or 10**9)))
        return QueryChange(qid, self.texts.get(qid, ""), self.before[qid], self.after[qid], moved[:MOVES])


def _ranks(found: Sequence[Candidate]) -> dict[str, int]:
    return {one.doc_id: rank for rank, one in enumerate(found, 1)}


def _relevant(grades: Mapping[str, int]) -> list[str]:
    return [doc_id for doc_id, grade in grades.items() if grade > 0]
