"""The comparison of two runs: the measures by known values and properties, and how the runs are made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.cli.queries import built_in_queries
from rerankd.compare import QUERIES_AT_ONCE, Changed, Comparison, Drift, Query, compare, kendall_tau, ndcg, rank_all
from rerankd.engine.loading.open import Choice
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import InferenceError
from rerankd.ranking import Prepared
from rerankd.startup import start_scorer
from rerankd.types import Logits, ModelInfo, Prompt, Ranking, RerankRequest, TokenCounts

INFO = ModelInfo("fake", "qwen3", "none", 1000, "cpu", "float32", 0, "")
HALF_TO_THREE_QUARTERS = math.log(3)  # sigmoid(0) = 0.5, sigmoid(ln 3) = 0.75

logits = st.floats(-30, 30, width=32)
tied_values = st.integers(-3, 3).map(float)
grades = st.integers(0, 4)


def query(num_documents: int, relevance: Sequence[float] | None = None, source: str = "q:1") -> Query:
    documents = tuple(f"document {index}" for index in range(num_documents))
    return Query(source, "a query", documents, None if relevance is None else tuple(relevance))


def ranking(logits: Sequence[float]) -> Ranking:
    documents = tuple(f"document {index}" for index in range(len(logits)))
    return prepared(RerankRequest(("a query",), documents)).finish(Logits(logits))


def prepared(request: RerankRequest) -> Prepared:
    queries = request.per_document(request.queries)
    pairs = zip(queries, request.documents, strict=True)
    return Prepared(request, [Prompt(query, document, [1], 1, 1) for query, document in pairs], TokenCounts(0, 0), INFO)


def compared(
    reference: Sequence[Sequence[float]],
    candidate: Sequence[Sequence[float]],
    relevance: Sequence[Sequence[float] | None] | None = None,
) -> Comparison:
    """Of logits, a list a query."""
    relevance = relevance or [None] * len(reference)
    queries = [query(len(values), judged) for values, judged in zip(reference, relevance, strict=True)]
    return compare(queries, [ranking(values) for values in reference], [ranking(values) for values in candidate])


# drift


def test_drift_is_over_all_pairs_of_all_queries() -> None:
    zeros = [0.0] * 10
    result = compared([zeros, zeros], [range(1, 11), range(-11, -21, -1)])
    assert result.logit == Drift(mean=10.5, p95=19, largest=20)


def test_the_score_s_drift_is_that_of_the_sigmoid() -> None:
    result = compared([[0.0, 0.0]], [[HALF_TO_THREE_QUARTERS, -HALF_TO_THREE_QUARTERS]])
    assert astuple(result.score) == pytest.approx((0.25,) * 3)
    assert astuple(result.logit) == pytest.approx((HALF_TO_THREE_QUARTERS,) * 3)


def test_one_pair_is_enough() -> None:
    result = compared([[2.0]], [[2.5]])
    assert result.logit == Drift(0.5, 0.5, 0.5)
    assert (result.kendall_tau, dict(result.top), result.ndcg_at_10) == (None, {}, None)


@settings(deadline=None)
@given(st.lists(logits, min_size=1, max_size=100))
def test_drift_is_ordered_and_symmetric(values: list[float]) -> None:
    other = [value + 1 / (1 + index) for index, value in enumerate(values)]
    there, back = compared([values], [other]), compared([other], [values])
    assert 0 < there.logit.p95 <= there.logit.largest and 0 < there.logit.mean <= there.logit.largest + 1e-12
    assert (there.logit, there.score, there.kendall_tau) == (back.logit, back.score, back.kendall_tau)


# order


@pytest.mark.parametrize(
    ("a", "b", "tau"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),
        ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),
        ([1, 1, 2], [5, 5, 9], 1),
        ([1, 2], [7, 7], None),
        ([1], [1], None),
    ],
)
def test_kendall_s_tau_b(a: list[float], b: list[float], tau: float | None) -> None:
    assert kendall_tau(a, b) == (None if tau is None else pytest.approx(tau))


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.tuples(tied_values, tied_values), min_size=2, max_size=30))
def test_kendall_s_tau_is_scipy_s(pairs: list[tuple[float, float]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = zip(*pairs, strict=True)
    tau = kendall_tau(a, b)
    expected = stats.kendalltau(a, b).statistic
    assert math.isnan(expected) if tau is None else tau == pytest.approx(expected, abs=1e-9)


def test_tau_is_the_mean_over_the_queries_that_have_one() -> None:
    same, turned, tied = [1.0, 2, 3], [3.0, 2, 1], [5.0, 5, 5]
    assert compared([same, same, tied], [same, turned, same]).kendall_tau == pytest.approx(0)
    assert compared([same, tied], [same, same]).kendall_tau == 1


def test_the_first_documents_are_compared_as_a_set_where_there_are_more() -> None:
    reference = [9.0, 8, 7, 6, 5]
    swapped_in_front = [8.0, 9, 7, 6, 5]
    fourth_for_third = [9.0, 8, 6, 7, 5]
    three_turned_round = ([3.0, 2, 1], [1.0, 2, 3])
    result = compared(
        [reference, reference, reference, three_turned_round[0], [1.0]],
        [reference, swapped_in_front, fourth_for_third, three_turned_round[1], [2.0]],
    )
    assert result.top == {1: Changed(2, of=4), 3: Changed(1, of=3)}


def test_ties_are_in_the_order_of_the_documents() -> None:
    assert compared([[1.0, 1, 0]], [[1.5, 1, 0]]).top[1] == Changed(0, of=1)
    assert compared([[1.0, 1, 0]], [[1.0, 1.5, 0]]).top[1] == Changed(1, of=1)


@settings(deadline=None)
@given(st.lists(st.lists(logits, min_size=1, max_size=12), min_size=1, max_size=5))
def test_a_run_beside_itself_has_not_moved(run: list[list[float]]) -> None:
    result = compared(run, run, [[1] * len(values) for values in run])
    assert result.score == result.logit == Drift(0, 0, 0)
    assert result.kendall_tau in (None, pytest.approx(1))
    assert all(changed.queries == 0 for changed in result.top.values())
    assert result.ndcg_at_10 is not None and result.ndcg_at_10.before == result.ndcg_at_10.after


@settings(deadline=None)
@given(st.lists(st.integers(-1000, 1000).map(lambda value: value / 64), min_size=2, max_size=15))
def test_a_shift_of_all_logits_moves_no_document(values: list[float]) -> None:
    result = compared([values], [[value + 0.25 for value in values]], [list(range(len(values)))])
    assert result.logit == Drift(0.25, 0.25, 0.25)
    assert result.kendall_tau in (None, pytest.approx(1))
    assert result.top[1].queries == 0
    assert result.ndcg_at_10 is not None and result.ndcg_at_10.before == result.ndcg_at_10.after


# nDCG


def test_ndcg_by_hand() -> None:
    dcg = 3 / 1 + 2 / math.log2(3) + 3 / 2 + 0 + 1 / math.log2(6) + 2 / math.log2(7)
    ideal = 3 / 1 + 3 / math.log2(3) + 2 / 2 + 2 / math.log2(5) + 1 / math.log2(6)
    assert ndcg([3, 2, 3, 0, 1, 2], 10) == pytest.approx(dcg / ideal) == pytest.approx(0.96081, abs=1e-5)
    assert ndcg([0, 3], 10) == pytest.approx(1 / math.log2(3))
    assert ndcg([0, 3], 1) == 0
    assert ndcg([1] * 3 + [0] * 20, 2) == 1
    assert ndcg([0, 0], 10) is None
    assert ndcg([0.5, 0], 10) == 1


@settings(deadline=None)  # the first call imports scikit-learn
@given(st.lists(st.tuples(grades, st.integers(-50, 50)), min_size=2, max_size=25, unique_by=lambda pair: pair[1]))
def test_ndcg_is_scikit_learn_s(documents: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gains, scores = [grade for grade, _ in documents], [score for _, score in documents]
    ranked = [grade for grade, _ in sorted(documents, key=lambda document: -document[1])]
    ours = ndcg(ranked, 10)
    assert (ours or 0.0) == pytest.approx(metrics.ndcg_score([gains], [scores], k=10))


@settings(deadline=None)
@given(st.lists(grades, min_size=1, max_size=20).filter(any))
def test_ndcg_is_1_for_the_best_order_and_at_most_1_for_any(relevance: list[int]) -> None:
    value = ndcg(relevance, 10)
    assert value is not None and 0 <= value <= 1 + 1e-12
    assert ndcg(sorted(relevance, reverse=True), 10) == 1


def test_ndcg_is_the_mean_over_the_queries_with_a_relevant_document() -> None:
    right, wrong = [2.0, 1.0], [1.0, 2.0]
    result = compared([right] * 4, [right, wrong, wrong, wrong], [[1, 0], [1, 0], [0, 0], None])
    assert result.ndcg_at_10 is not None
    assert result.ndcg_at_10.before == 1
    assert result.ndcg_at_10.after == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert compared([right] * 2, [wrong] * 2, [[0, 0], None]).ndcg_at_10 is None


# runs


@pytest.fixture(scope="module")
def scorer() -> Iterator[EngineScorer]:
    """The embedded model."""
    scorer = start_scorer(Choice("embedded", "cpu"))
    yield scorer
    scorer.close()


def test_many_queries_are_ranked_as_one_by_one_and_in_order(scorer: EngineScorer) -> None:
    queries = [
        Query(f"q:{number}", f"What is {number} and {number}?", (f"It is {2 * number}.", "A cat.", f"{number}"))
        for number in range(2 * QUERIES_AT_ONCE + 3)
    ]
    done: list[int] = []
    rankings = rank_all(scorer, queries, done.append)
    assert done == list(range(1, len(queries) + 1))
    for asked, ranking in zip(queries, rankings, strict=True):
        [alone] = rank_all(scorer, [asked])
        assert [score.document for score in ranking.scores] == list(asked.documents)
        assert [score.logit for score in ranking.scores] == pytest.approx([s.logit for s in alone.scores], abs=1e-4)


def test_half_a_character_is_replaced_and_told(scorer: EngineScorer) -> None:
    queries = [query(2, source="data.jsonl:1"), replace(query(2, source="data.jsonl:2"), text="half \ud83d")]
    whole, half = rank_all(scorer, queries)
    assert whole.warnings == ()
    assert half.warnings == ("lone surrogates were replaced by U+FFFD in the query",)


class Slow:
    """A scorer that answers NaN to the query "bad", a number to the others, and not at all to those that wait."""

    info = INFO

    def __init__(self) -> None:
        self.instructs: list[str] = []
        self.futures: list[Future[Logits]] = []

    def prepare(self, request: RerankRequest) -> Prepared:
        self.instructs.append(request.instruct)
        return prepared(request)

    def submit(self, prepared: Prepared) -> Future[Logits]:
        future: Future[Logits] = Future()
        [query] = prepared.request.queries
        if query != "waits":
            logit = math.nan if query == "bad" else 1.0
            future.set_result(Logits([logit] * len(prepared.prompts)))
        self.futures.append(future)
        return future


def test_a_score_that_is_no_number_ends_the_run_and_cancels_what_waits() -> None:
    backend = Slow()
    texts = ("good", "bad", "waits", "waits")
    queries = [Query(f"q:{number}", text, ("a", "b")) for number, text in enumerate(texts, 1)]
    with pytest.raises(InferenceError, match=r"^q:2: The model gave document 0 a score that is not a number"):
        rank_all(backend, queries)
    assert [future.cancelled() for future in backend.futures] == [False, False, True, True]


def test_a_query_s_own_instruct_is_used() -> None:
    backend = Slow()
    rank_all(backend, [query(1), replace(query(1), instruct="Find the opposite.")])
    assert backend.instructs == [query(1).instruct, "Find the opposite."]


# the built-in set


def test_the_built_in_set_is_judged_and_its_best_documents_are_anywhere() -> None:
    queries = built_in_queries()
    assert len(queries) == 12
    for asked in queries:
        assert 5 <= len(asked.documents) == len(set(asked.documents)) <= 8
        assert asked.relevance is not None and asked.relevance.count(3) == 1
    assert len({asked.relevance.index(3) for asked in queries if asked.relevance}) > 3
    assert sum(any("\u4e00" <= character for character in asked.text) for asked in queries) == 4


def test_a_model_that_reads_english_finds_the_english_answers(scorer: EngineScorer) -> None:
    english = built_in_queries()[:4]
    rankings = rank_all(scorer, english)
    result = compare(english, rankings, rankings)
    assert result.ndcg_at_10 is not None and result.ndcg_at_10.before > 0.9
