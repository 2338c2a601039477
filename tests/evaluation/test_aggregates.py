"""The study of aggregates: what a run of another aggregate of the same passages would score."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rerankd.evaluation.aggregates import AGGREGATES, aggregate_study, aggregated
from rerankd.evaluation.measures import Measures
from rerankd.evaluation.study import study
from rerankd.evaluation.verdict import passages_said
from rerankd.runs.judgements import Judgements
from rerankd.runs.run import Candidate, Run

MEASURES = Measures(["nDCG@10", "RR@10"])


def a_run(queries: int = 30, documents: int = 12, seed: int = 1) -> tuple[Run, Judgements]:
    """Documents of one to five passages; a relevant one has one good passage, anywhere."""
    random = np.random.default_rng(seed)
    ranked, judged = {}, {}
    for query in range(queries):
        found = []
        for document in range(documents):
            logits = random.normal(size=random.integers(1, 6))
            if document < 2:
                logits[random.integers(len(logits))] += 3
            passages = tuple(float(np.float32(logit)) for logit in logits)
            found.append(Candidate(f"d{document}", max(passages), 10 * len(passages), passages))
        ranked[f"q{query}"] = tuple(sorted(found, key=lambda one: -one.score))
        judged[f"q{query}"] = {"d0": 1, "d1": 1}
    return Run("passages", ranked, has_logits=True), judged


def test_the_best_passage_gives_the_run_itself_and_the_others_runs_of_their_own() -> None:
    run, judged = a_run()
    found = aggregate_study(run.ranked, judged, MEASURES.of_first(judged))
    assert found is not None
    by_hand = {
        "best passage (MaxP)": max,
        "first passage (FirstP)": lambda logits: logits[0],
        "mean of the best 3": lambda logits: np.mean(sorted(logits)[-3:]),
        "sum of the odds": lambda logits: math.log(sum(map(math.exp, logits))),
    }
    assert [one.name for one in found.aggregates] == list(by_hand) == list(AGGREGATES)
    for one, way in zip(found.aggregates, by_hand.values(), strict=True):
        order = {
            qid: sorted(some, key=lambda candidate: -way(candidate.passages))  # type: ignore[operator]
            for qid, some in run.ranked.items()
        }
        assert one.mean == pytest.approx(MEASURES.evaluate(order, judged).means["nDCG@10"], abs=1e-12)
    best, first = found.aggregates[:2]
    assert best.mean == MEASURES.evaluate(run.ranked, judged).means["nDCG@10"] and best.paired is None
    assert first.paired is not None and first.paired.p_holm < 0.05
    assert first.paired.low < first.paired.difference < first.paired.high < 0


def test_ties_keep_the_order_of_the_run() -> None:
    tied = {"q": (Candidate("b", 2.0, 0, (2.0, 1.0)), Candidate("a", 1.9, 0, (2.0, 1.0)))}
    for way in AGGREGATES.values():
        assert [one.doc_id for one in aggregated(tied, way)["q"]] == ["b", "a"]


def test_large_and_infinite_logits_have_a_sum() -> None:
    way = AGGREGATES["sum of the odds"]
    assert way([1000.0, 1000.0]) == pytest.approx(1000 + math.log(2)) and way([-1000.0]) == -1000
    assert way([-math.inf]) == -math.inf


def test_passages_are_counted_by_where_the_best_one_stands() -> None:
    ranked = {
        "q": (
            Candidate("late", 2.0, 0, (1.0, 2.0)),
            Candidate("early", 1.0, 0, (1.0, 0.5)),
            Candidate("whole", 0.5, 0, (0.5,)),
            Candidate("other", 0.1, 0, (0.0, 0.1)),
        )
    }
    judged = {"q": {"late": 1, "early": 2, "whole": 1, "other": 0}}
    found = aggregate_study(ranked, judged, MEASURES.of_first(judged))
    assert found is not None and (found.documents, found.split, found.relevant, found.later) == (4, 3, 2, 1)
    assert passages_said(found) == (
        "3 of 4 documents have several passages; of 2 relevant ones among these, 50\u00a0% have their best passage "
        "behind the first."
    )


def test_a_run_of_whole_documents_has_no_study() -> None:
    run = Run("whole", {"q": (Candidate("a", 1.0), Candidate("b", 0.5, 0, (0.5,)))})
    assert study([run], {"q": {"a": 1}}, MEASURES).baseline.aggregates is None
    split, judged = a_run(queries=5)
    assert study([split], judged, MEASURES).baseline.aggregates is not None
