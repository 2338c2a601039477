"""Measures, tests and studies of runs, against ir_measures' own command and against figures made by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rerankd.compare import ndcg
from rerankd.errors import InvalidRequest
from rerankd.evaluation.depth import depth_study, fusion_study
from rerankd.evaluation.measures import Measures, coverage, without_own
from rerankd.evaluation.scores import scores_of
from rerankd.evaluation.significance import holm, paired
from rerankd.evaluation.study import study
from rerankd.evaluation.verdict import verdict
from rerankd.runs.judgements import Judgements, read_judgements
from rerankd.runs.run import Candidate, Run, decreasing, read_run
from rerankd.runs.written import RankedPair, write_ranked

NAMES = ("nDCG@10", "RR@10", "AP@100", "R@100", "Judged@10", "P(rel=2)@5", "Success@1")


def a_run(name: str, queries: int, documents: int, seed: int, gain: float = 0.0, ties: int = 0) -> Run:
    """Scores of which `gain` is the grade, and the rest chance. ties: round to so many values."""
    random = np.random.default_rng(seed)
    ranked = {}
    for query in range(queries):
        scores = random.normal(size=documents) + gain * grades(query, documents)
        if ties:
            scores = np.floor(scores * ties)
        found = [Candidate(f"d{place}", float(np.float32(score))) for place, score in enumerate(scores)]
        ranked[f"q{query}"] = tuple(sorted(found, key=lambda one: (-one.score, one.doc_id)))
    return Run(name, ranked, has_logits=True)


def grades(query: int, documents: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(10_000 + query).choice([0, 0, 0, 0, 1, 2, -1], size=documents)


def judged(queries: int, documents: int) -> Judgements:
    return {f"q{q}": {f"d{d}": int(grade) for d, grade in enumerate(grades(q, documents))} for q in range(queries)}


def qrels_of(judgements: Judgements) -> str:
    return "".join(f"{q} 0 {d} {grade}\n" for q, found in judgements.items() for d, grade in found.items())


def test_measures_are_those_of_the_ir_measures_command(tmp_path: Path) -> None:
    run, qrels = a_run("chance", 30, 40, seed=1, ties=2), tmp_path / "qrels.txt"
    pairs = [
        RankedPair(qid, one.doc_id, rank, logit, 0.5, rank, 0.0, 0)
        for qid, found in run.ranked.items()
        for rank, (one, logit) in enumerate(zip(found, decreasing(one.score for one in found), strict=True), 1)
    ]
    write_ranked(tmp_path / "chance.trec", pairs, "chance")
    qrels.write_text(qrels_of(judged(33, 20)))
    command = [sys.executable, "-m", "ir_measures", str(qrels), str(tmp_path / "chance.trec"), *NAMES]
    said = subprocess.run([*command, "--places", "9"], check=True, capture_output=True, text=True).stdout
    theirs = {name: float(value) for name, value in (line.split("\t") for line in said.splitlines())}
    ours = Measures(NAMES).evaluate(read_run(tmp_path / "chance.trec").ranked, read_judgements([qrels])).means
    assert ours == pytest.approx(theirs, abs=1e-9) and len(ours) == len(NAMES)


def test_ndcg_by_hand() -> None:
    run = {"q": (Candidate("a", 3.0), Candidate("b", 2.0), Candidate("c", 1.0))}
    found = Measures(["nDCG@10"]).evaluate(run, {"q": {"a": 0, "b": 2, "c": 1}, "none": {"a": 1}})
    value = (2 / math.log2(3) + 1 / math.log2(4)) / (2 + 1 / math.log2(3))
    assert found.by_query["nDCG@10"] == pytest.approx({"q": value, "none": 0.0})
    assert found.means["nDCG@10"] == pytest.approx(value / 2)


def test_every_measure_judges_the_order_that_it_is_given() -> None:
    """Ten thousand rankings with ties, rises, and differences below 32 bits."""
    random = np.random.default_rng(2)
    ranked, judgements, expected = {}, {}, {}
    for query in range(10_000):
        order = random.permutation(6)
        scores = random.choice([0.0, 1.0, 1.0 + 1e-12, -5.0], size=6)
        ranked[f"q{query}"] = [Candidate(f"d{d}", float(s)) for d, s in zip(order, scores, strict=True)]
        judgements[f"q{query}"] = {"d0": 1}
        expected[f"q{query}"] = 1 / (1 + int(np.flatnonzero(order == 0)[0]))
    found = Measures(["RR@10", "RR", "AP"]).evaluate(ranked, judgements).by_query
    for name in ("RR@10", "RR", "AP"):
        assert found[name] == pytest.approx(expected)


def test_the_comparison_of_dtypes_has_the_same_ndcg() -> None:
    run, judgements = a_run("chance", 20, 15, seed=3), judged(20, 15)
    theirs = Measures(["nDCG@10"]).evaluate(run.ranked, judgements).by_query["nDCG@10"]
    for qid, found in run.ranked.items():
        ours = ndcg([judgements[qid][one.doc_id] for one in found], 10)
        assert (ours or 0.0) == pytest.approx(theirs[qid])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("foo@3", "not a measure of ir_measures"),
        ("nDCG@", "not a measure of ir_measures"),
        ("nDCG(dcg='exp-log2')@10", "linear gain"),
        ("alpha_nDCG@10", "no installed package"),
    ],
)
def test_a_measure_that_cannot_be_had_is_refused(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Measures([name])


def test_coverage_counts_what_does_not_fit() -> None:
    run = Run("r", {"a": (Candidate("a", 2.0), Candidate("d", 1.0)), "b": (Candidate("d", 1.0),)})
    found = coverage(run, {"a": {"d": 1}, "c": {"d": 1}})
    assert (found.judged, found.missing, found.unjudged, found.own) == (2, 1, 1, 1)
    assert without_own(run).ranked["a"] == (Candidate("d", 1.0),)


def test_the_depth_study_equals_runs_of_their_own() -> None:
    first, scored, judgements = a_run("first", 20, 30, seed=4), a_run("scored", 20, 30, seed=5, gain=2), judged(20, 30)
    measure = Measures(["nDCG@10"])
    depths = depth_study(
        first.ranked, scored.ranked, (5, 10, 200), lambda r: measure.evaluate(r, judgements).by_query["nDCG@10"]
    )
    assert [point.depth for point in depths.points] == [0, 5, 10, 30]
    for point in depths.points:
        logits = {qid: {one.doc_id: one.score for one in found} for qid, found in scored.ranked.items()}
        own = {
            qid: [
                *sorted(found[: point.depth], key=lambda one, qid=qid: -logits[qid][one.doc_id]),  # type: ignore[misc]
                *found[point.depth :],
            ]
            for qid, found in first.ranked.items()
        }
        assert point.mean == measure.evaluate(own, judgements).means["nDCG@10"]
        assert point.low <= point.mean <= point.high
    assert depths.points[0].mean == measure.evaluate(first.ranked, judgements).means["nDCG@10"]


def test_fusion_ends_at_both_runs() -> None:
    first, scored, judgements = a_run("first", 20, 30, seed=4), a_run("scored", 20, 30, seed=5, gain=2), judged(20, 30)
    measure = Measures(["nDCG@10"])
    points = fusion_study(
        first.ranked, scored.ranked, lambda ranked: measure.evaluate(ranked, judgements).by_query["nDCG@10"]
    )
    assert points[0].mean == measure.evaluate(first.ranked, judgements).means["nDCG@10"]
    assert points[-1].mean == measure.evaluate(scored.ranked, judgements).means["nDCG@10"]


@pytest.mark.slow
def test_both_tests_err_in_one_of_twenty_pairs_without_a_difference() -> None:
    random = np.random.default_rng(6)
    found = [
        paired(dict(enumerate_ids(random.beta(2, 2, 30))), dict(enumerate_ids(random.beta(2, 2, 30))))
        for _ in range(2000)
    ]
    for p_values in ([one.p_t for one in found], [one.p_randomisation for one in found]):
        assert 0.04 <= np.mean(np.array(p_values) < 0.05) <= 0.06


def enumerate_ids(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[tuple[str, float]]:
    return [(f"q{place}", float(value)) for place, value in enumerate(values)]


def test_a_planted_gain_is_found_and_said_first() -> None:
    runs = [a_run("first", 60, 30, seed=7), a_run("better", 60, 30, seed=8, gain=1), a_run("chance", 60, 30, seed=9)]
    found = study(runs, judged(60, 30), Measures(), {"q0": "a question"})
    better, chance = found.runs[1], found.runs[2]
    assert better.compared is not None and better.compared.paired["nDCG@10"].p_holm < 0.001
    assert verdict(found, better).sentence.startswith("better improves nDCG@10 by +0.")
    assert verdict(found, chance).kind == "unclear" and "may be chance" in verdict(found, chance).detail
    p = better.compared.paired["nDCG@10"]
    assert p.wins + p.ties + p.losses == 60 and p.low < p.difference < p.high
    assert better.scores is not None and better.scores.pairs == 60 * 30
    assert sum(one.count for one in better.scores.bins) == 60 * 30 and better.scores.histogram is not None
    gained = better.compared.gained[0]
    assert gained.after - gained.before == max(better.compared.sorted_differences) and gained.moves


def test_the_t_test_is_scipy_s() -> None:
    random = np.random.default_rng(12)
    one, two = random.normal(size=25), random.normal(size=25) + 0.3
    found = paired(dict(enumerate_ids(one)), dict(enumerate_ids(two)))
    assert found.p_t == pytest.approx(stats.ttest_rel(two, one).pvalue)


def test_equal_runs_do_not_differ() -> None:
    run = a_run("one", 30, 10, seed=1)
    same = Run("two", run.ranked)
    found = study([run, same], judged(30, 10), Measures(["nDCG@10"]))
    assert found.runs[1].compared is not None
    one = found.runs[1].compared.paired["nDCG@10"]
    assert (one.difference, one.p_t, one.p_randomisation, one.ties) == (0.0, 1.0, 1.0, 30)


def test_few_queries_are_named() -> None:
    runs = [a_run("first", 5, 30, seed=7), a_run("better", 5, 30, seed=8, gain=5)]
    found = study(runs, judged(5, 30), Measures())
    assert "With 5 queries no test can be trusted." in verdict(found, found.runs[1]).detail


def test_a_run_of_other_documents_has_no_depth_study() -> None:
    run, other = a_run("one", 30, 10, seed=1), a_run("two", 30, 12, seed=1)
    compared = study([run, other], judged(30, 10), Measures()).runs[1].compared
    assert compared is not None and compared.depths is None and not compared.fusion


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_wrong_files_are_named() -> None:
    run = a_run("one", 3, 10, seed=1)
    with pytest.raises(InvalidRequest, match="No query of one has judgements"):
        study([run], {"other": {"d": 1}}, Measures())
    with pytest.raises(InvalidRequest, match="Two runs are named one"):
        study([run, run], judged(3, 10), Measures())


def test_unjudged_pairs_are_irrelevant_only_where_none_is_judged_to_be() -> None:
    run = Run("r", {"q": (Candidate("a", 2.0), Candidate("b", -2.0), Candidate("c", -3.0))}, has_logits=True)
    relevant_only, both = scores_of(run, {"q": {"a": 1}}), scores_of(run, {"q": {"a": 1, "b": 0}})
    assert relevant_only is not None and both is not None and (relevant_only.pairs, both.pairs) == (3, 2)
    p = [1 / (1 + math.exp(-logit)) for logit in (2.0, -2.0)]
    assert both.ece == pytest.approx((1 - p[0] + p[1]) / 2)
    assert scores_of(run, {"q": {"d": 0}}) is None and scores_of(Run("r", run.ranked), {"q": {"a": 1}}) is None


def test_a_histogram_has_all_pairs_of_each_kind() -> None:
    run = a_run("r", 20, 30, seed=1, gain=2)
    found = scores_of(run, judged(20, 30))
    assert found is not None and found.histogram is not None
    shown = found.histogram
    assert sum(shown.relevant) == pytest.approx(1) and sum(shown.irrelevant) == pytest.approx(1)
    logits = [one.score for found in run.ranked.values() for one in found]
    assert (shown.edges[0], shown.edges[-1]) == (min(logits), max(logits))
