"""`prepare` and `finish`, with a model whose tokens are words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rerankd import ranking
from rerankd.errors import InvalidRequest, PromptTooLong, TooManyDocuments, TooManyTokens
from rerankd.ranking import Prepared
from rerankd.testing import TEMPLATE_TOKENS, FakeModel
from rerankd.types import Limits, Logits, ModelInfo, Prompt, Ranking, RerankRequest, TokenCounts, Truncation, Usage

INFO = ModelInfo("fake", "qwen3", "none", 1000, "cpu", "float32", 0, "")
QUERY = "which planet"


def encode(query: str, document: str, *truncations: Truncation) -> Prompt:
    [prompt] = FakeModel().encode(RerankRequest((query,), (document,)))
    return replace(prompt, truncations=truncations)


def request(*documents: str, top_n: int | None = None, **limits: int | str) -> RerankRequest:
    return RerankRequest((QUERY,), documents, top_n=top_n, limits=Limits(**limits))  # type: ignore[arg-type]


def prepare(request: RerankRequest, model: FakeModel | None = None) -> Prepared:
    return ranking.prepare(request, model or FakeModel(), INFO)


def ranked(request: RerankRequest, *logits: float) -> Ranking:
    return prepare(request).finish(Logits(logits))


def prepared(request: RerankRequest, *prompts: Prompt) -> Prepared:
    return Prepared(request, prompts, TokenCounts(0, 0), INFO)


# prepare


def test_the_model_gets_the_request_and_its_limits() -> None:
    model = FakeModel()
    asked = replace(request("a", max_documents=1, max_query_tokens=7), instruct="Find planets.")
    assert prepare(asked, model).prompts == [encode(QUERY, "a")]
    assert model.requests == [asked]


def test_each_document_may_have_a_query_of_its_own() -> None:
    asked = RerankRequest(("one", "two words"), ("a", "b c d"))
    found = prepare(asked)
    assert [(prompt.query, prompt.document) for prompt in found.prompts] == [("one", "a"), ("two words", "b c d")]
    assert found.usage.text_tokens == (1 + 1) + (2 + 3)
    with pytest.raises(ValueError, match="2 queries for 3 documents"):
        RerankRequest(("one", "two"), ("a", "b", "c"))


def test_too_many_documents() -> None:
    model = FakeModel()
    with pytest.raises(TooManyDocuments, match="3 documents; from 1 to 2 are allowed") as caught:
        prepare(request("a", "b", "c", max_documents=2), model)
    assert caught.value.limit == 2
    assert model.requests == [], "refused before any work"
    assert len(prepare(request("a", "b", max_documents=2), model).prompts) == 2


@pytest.mark.parametrize("top_n", [0, -1])
def test_a_top_n_below_one(top_n: int) -> None:
    with pytest.raises(InvalidRequest, match=f"top_n must be at least 1.*it is {top_n}"):
        prepare(request("a", top_n=top_n))


def test_too_many_tokens_in_all() -> None:
    # The query's 2 words count for each of the 2 documents: 2 × 2 + 3 + 4 = 11. The template does not count.
    documents = ("one two three", "one two three four")
    with pytest.raises(TooManyTokens, match=r"has 11 tokens .* the limit is 10\."):
        prepare(request(*documents, max_total_tokens=10))
    assert len(prepare(request(*documents, max_total_tokens=11)).prompts) == 2


def test_a_prompt_over_the_context_is_refused_where_it_is_not_cut() -> None:
    documents = ("short", "one two three four")
    tokens = TEMPLATE_TOKENS + 2 + 4
    with pytest.raises(
        PromptTooLong, match=f"document 1 has at least {tokens} tokens: the model reads {tokens - 1} tokens"
    ):
        prepare(request(*documents, max_prompt_tokens=tokens - 1, on_overlong="refuse"))
    for kept in (
        request(*documents, max_prompt_tokens=tokens, on_overlong="refuse"),
        request(*documents, max_prompt_tokens=tokens - 1, on_overlong="truncate"),
    ):
        assert len(prepare(kept).prompts) == 2


# finish


def test_the_ranking_is_sorted_with_ties_in_the_calls_order() -> None:
    asked = request("a", "b", "c", "d", "e")
    found = ranked(asked, 1.0, 3.0, -2.0, 3.0, 1.0)
    assert [score.index for score in found.ranked] == [1, 3, 0, 4, 2]
    last = found.scores[2]
    assert (last.index, last.logit, last.document, last.cached) == (2, -2.0, "c", False)
    assert [score.index for score in found.scores] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("top_n", "indices"), [(1, [2]), (2, [2, 0]), (3, [2, 0, 1]), (9, [2, 0, 1]), (None, [2, 0, 1])]
)
def test_top_n_shortens_the_ranking_and_nothing_else(top_n: int | None, indices: list[int]) -> None:
    asked = request("a", "b", "c", top_n=top_n)
    found = ranked(asked, 2.0, 1.0, 3.0)
    assert [score.index for score in found.ranked] == indices
    assert len(found.scores) == 3
    assert found.usage.text_tokens == 3 * (2 + 1)


def test_usage_counts_what_ran_and_what_is_billed() -> None:
    asked = request("one two three", "one", "")
    usage = ranked(asked, 0.0, 0.0, 0.0).usage
    assert usage == Usage(total_tokens=3 * (TEMPLATE_TOKENS + 2) + 4, text_tokens=3 * 2 + 4)


def test_a_cut_document_comes_back_whole() -> None:
    asked = request("one two three")
    truncated = encode(QUERY, "one", Truncation("document", 3, 1))
    assert prepared(asked, truncated).finish(Logits([0.0])).scores[0].document == "one two three"


def test_what_was_cut_is_said_once() -> None:
    asked = request("a", "b", "c")
    query = Truncation("query", 9, 2)
    prompts = [
        encode(QUERY, "a", query),
        encode(QUERY, "b", query, Truncation("document", 5, 1)),
        encode(QUERY, "c", query, Truncation("document", 700, 1, at_least=True)),
    ]
    noticed = replace(INFO, notice="This is a fallback.")
    assert replace(prepared(asked, *prompts), info=noticed).finish(Logits([0.0] * 3)).warnings == (
        "This is a fallback.",
        "query truncated from 9 to 2 tokens",
        "2 of 3 documents were truncated (longest: document 2, from more than 700 to 1 tokens)",
    )
    assert ranked(asked, 0.0, 0.0, 0.0).warnings == ()


def test_logits_that_do_not_match_the_prompts_are_a_bug() -> None:
    asked = request("a", "b")
    with pytest.raises(ValueError):
        ranked(asked, 0.0)


@pytest.mark.parametrize(("logit", "score"), [(0, 0.5), (1000, 1.0), (-1000, 0.0), (2, 0.8807970779778823)])
def test_a_score_is_the_sigmoid_of_its_logit(logit: float, score: float) -> None:
    assert ranked(request("a"), logit).ranked[0].score == pytest.approx(score, abs=1e-15)
