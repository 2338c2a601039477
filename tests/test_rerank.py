"""prepare and finish, with a backend whose tokens are words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from rerankd.errors import InvalidRequest, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.rerank import finish, prepare
from rerankd.types import Cut, EncodedPair, Limits, Logits, ModelInfo, Pair, RerankRequest, Score, Usage

INFO = ModelInfo("fake", "qwen3", "none", 1000, "cpu", "float32", 0, "")
TEMPLATE_TOKENS = 10


class WordBackend:
    """One token a word, ten for the template. Ignores the limits, as far as it may: what is over is left over."""

    info = INFO

    def __init__(self) -> None:
        self.calls: list[tuple[str, Limits]] = []

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        self.calls.append((instruct, limits))
        return [encode(pair) for pair in pairs]

    def submit(
        self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> Future[list[float]]:
        raise AssertionError("neither prepare nor finish scores")


def encode(pair: Pair, *cuts: Cut) -> EncodedPair:
    query, document = len(pair.query.split()), len(pair.document.split())
    return EncodedPair(pair, range(TEMPLATE_TOKENS + query + document), query, document, cuts)


def request(*documents: str, top_n: int | None = None, **limits: int | str) -> RerankRequest:
    pairs = tuple(Pair("which planet", document) for document in documents)
    return RerankRequest(pairs, top_n=top_n, limits=Limits(**limits))  # type: ignore[arg-type]


# prepare


def test_the_backend_gets_the_instruct_and_the_limits() -> None:
    backend = WordBackend()
    asked = replace(request("a", max_documents=1, max_query_tokens=7), instruct="Find planets.")
    assert prepare(asked, backend) == [encode(Pair("which planet", "a"))]
    assert backend.calls == [("Find planets.", asked.limits)]


def test_too_many_documents() -> None:
    backend = WordBackend()
    with pytest.raises(TooManyDocuments, match="3 documents; from 1 to 2 are allowed") as caught:
        prepare(request("a", "b", "c", max_documents=2), backend)
    assert caught.value.limit == 2
    assert backend.calls == [], "refused before any work"
    assert len(prepare(request("a", "b", max_documents=2), backend)) == 2


@pytest.mark.parametrize("top_n", [0, -1])
def test_a_top_n_below_one(top_n: int) -> None:
    with pytest.raises(InvalidRequest, match=f"top_n must be at least 1.*it is {top_n}"):
        prepare(request("a", top_n=top_n), WordBackend())


def test_too_many_tokens_in_all() -> None:
    # The query's 2 words count for each of the 2 documents: 2 × 2 + 3 + 4 = 11. The template does not count.
    documents = ("one two three", "one two three four")
    with pytest.raises(TooManyTokens, match=r"has 11 tokens .* the limit is 10\."):
        prepare(request(*documents, max_total_tokens=10), WordBackend())
    assert len(prepare(request(*documents, max_total_tokens=11), WordBackend())) == 2


def test_a_prompt_over_the_context_is_refused_where_it_is_not_cut() -> None:
    documents = ("short", "one two three four")
    tokens = TEMPLATE_TOKENS + 2 + 4
    with pytest.raises(PromptTooLong, match=f"length is {tokens - 1} tokens.* document 1 contains at least {tokens} "):
        prepare(request(*documents, max_prompt_tokens=tokens - 1, overlong_prompt="refuse"), WordBackend())
    for kept in (
        request(*documents, max_prompt_tokens=tokens, overlong_prompt="refuse"),
        request(*documents, max_prompt_tokens=tokens - 1, overlong_prompt="cut"),
    ):
        assert len(prepare(kept, WordBackend())) == 2


# finish


def test_the_ranking_is_sorted_with_ties_in_the_calls_order() -> None:
    asked = request("a", "b", "c", "d", "e")
    ranking = finish(asked, prepare(asked, WordBackend()), Logits([1.0, 3.0, -2.0, 3.0, 1.0]), INFO)
    assert [score.index for score in ranking.ranked] == [1, 3, 0, 4, 2]
    last = ranking.scores[2]
    assert (last.index, last.logit, last.document, last.cached) == (2, -2.0, "c", False)
    assert [score.index for score in ranking.scores] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("top_n", "indices"), [(1, [2]), (2, [2, 0]), (3, [2, 0, 1]), (9, [2, 0, 1]), (None, [2, 0, 1])]
)
def test_top_n_shortens_the_ranking_and_nothing_else(top_n: int | None, indices: list[int]) -> None:
    asked = request("a", "b", "c", top_n=top_n)
    ranking = finish(asked, prepare(asked, WordBackend()), Logits([2.0, 1.0, 3.0]), INFO)
    assert [score.index for score in ranking.ranked] == indices
    assert len(ranking.scores) == 3
    assert ranking.usage.text_tokens == 3 * (2 + 1)


def test_usage_counts_what_ran_and_what_is_billed() -> None:
    asked = request("one two three", "one", "")
    usage = finish(asked, prepare(asked, WordBackend()), Logits([0.0] * 3), INFO).usage
    assert usage == Usage(prompt_tokens=3 * (TEMPLATE_TOKENS + 2) + 4, text_tokens=3 * 2 + 4)


def test_a_cut_document_comes_back_whole() -> None:
    asked = request("one two three")
    cut = encode(Pair("which planet", "one"), Cut("document", 3, 1))
    assert finish(asked, [cut], Logits([0.0]), INFO).scores[0].document == "one two three"


def test_what_was_cut_is_said_once() -> None:
    asked = request("a", "b", "c")
    query = Cut("query", 9, 2)
    pairs = [
        encode(asked.pairs[0], query),
        encode(asked.pairs[1], query, Cut("document", 5, 1)),
        encode(asked.pairs[2], query, Cut("document", 700, 1, at_least=True)),
    ]
    noticed = replace(INFO, notice="This is a fallback.")
    assert finish(asked, pairs, Logits([0.0] * 3), noticed).warnings == (
        "This is a fallback.",
        "query truncated from 9 to 2 tokens",
        "2 of 3 documents were truncated (longest: document 2, from more than 700 to 1 tokens)",
    )
    assert finish(asked, prepare(asked, WordBackend()), Logits([0.0] * 3), INFO).warnings == ()


def test_logits_that_do_not_match_the_pairs_are_a_bug() -> None:
    asked = request("a", "b")
    with pytest.raises(ValueError):
        finish(asked, prepare(asked, WordBackend()), Logits([0.0]), INFO)


@pytest.mark.parametrize(("logit", "score"), [(0, 0.5), (1000, 1.0), (-1000, 0.0), (2, 0.8807970779778823)])
def test_a_score_is_the_sigmoid_of_its_logit(logit: float, score: float) -> None:
    assert Score(0, logit, "").score == pytest.approx(score, abs=1e-15)
