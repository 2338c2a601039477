"""Cohere's versions 1 and 2: every documented field, limit and sentence."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rerankd.engine.scorer import EngineScorer
from support.fakes import NumberedModel, scorer_of
from support.server import Server
from support.serving import serving
from support.surfaces import COHERE_V1, COHERE_V2, DOCUMENTS, QUERY, RERANK, Surface
from support.waiting import wait_until

BOTH = pytest.mark.parametrize("folder", [COHERE_V1, COHERE_V2], ids=str)


def reply(server: Server, folder: Surface, *texts: Any, **options: Any) -> Any:
    response = server.post(folder.path, folder.body(*texts, **options))
    assert response.status_code == 200, response.text[:1000]
    return response.json()


def refusal(server: Server, folder: Surface, *texts: Any, **options: Any) -> str:
    return folder.error(server.post(folder.path, folder.body(*texts, **options)), 400)


@BOTH
def test_the_reply(folder: Surface, qwen_server: Server) -> None:
    prompt_tokens = qwen_server.post(RERANK.path, RERANK.body()).json()["usage"]["prompt_tokens"]
    response = qwen_server.post(folder.path, folder.body())
    body = response.json()
    assert set(body) == {"id", "results", "meta"}
    assert body["id"] == response.headers["x-request-id"]
    assert all(set(row) == {"index", "relevance_score"} for row in body["results"])
    assert body["meta"] == {
        "api_version": {"version": "1" if folder is COHERE_V1 else "2", "is_experimental": False},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": prompt_tokens, "output_tokens": 0},
        "warnings": [],
    }


@BOTH
@pytest.mark.parametrize(("num_documents", "search_units"), [(1, 1), (100, 1), (101, 2), (201, 3)])
def test_a_search_unit_is_a_hundred_documents(
    folder: Surface, num_documents: int, search_units: int, qwen_server: Server
) -> None:
    meta = reply(qwen_server, folder, QUERY, ["a"] * num_documents)["meta"]
    assert meta["billed_units"] == {"search_units": search_units}


# Version 1.


def test_v1_documents_are_returned_when_asked_for(qwen_server: Server) -> None:
    documents = [{"text": "one", "url": "u", "page": 3}, "two", {"snippet": "three", "id": "x"}]
    rows = reply(qwen_server, COHERE_V1, QUERY, documents, return_documents=True)["results"]
    assert {row["index"]: row["document"] for row in rows} == {
        0: {"text": "one", "url": "u", "page": 3},
        1: {"text": "two"},
        2: {"text": "three", "snippet": "three", "id": "x"},
    }
    assert rows == sorted(rows, key=lambda row: -row["relevance_score"])


def test_v1_rank_fields_say_what_is_scored(qwen_server: Server) -> None:
    documents = [
        {"title": "Beijing", "body": "The capital of China.", "text": "Nothing"},
        {"title": "Gravity", "body": "A force."},
        {"title": "Bread"},
    ]
    told = reply(qwen_server, COHERE_V1, QUERY, documents, rank_fields=["title", "body"], return_documents=True)
    lines = ["title: Beijing\nbody: The capital of China.", "title: Gravity\nbody: A force.", "title: Bread"]
    plain = reply(qwen_server, COHERE_V1, QUERY, lines)
    scores = [{row["index"]: row["relevance_score"] for row in one["results"]} for one in (told, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    shown = {row["index"]: row["document"] for row in told["results"]}
    assert shown == {0: documents[0], 1: {"text": lines[1], **documents[1]}, 2: {"text": lines[2], **documents[2]}}
    text_only = [{"text": text, "title": "Other"} for text in DOCUMENTS]
    default = reply(qwen_server, COHERE_V1)["results"]
    assert reply(qwen_server, COHERE_V1, QUERY, text_only, rank_fields=["text"])["results"] == default
    assert reply(qwen_server, COHERE_V1, QUERY, text_only)["results"] == default


def test_v1_does_not_split_what_fits(qwen_server: Server) -> None:
    body = reply(qwen_server, COHERE_V1, max_chunks_per_doc=5)
    assert body["meta"]["warnings"] == []
    assert body["results"] == reply(qwen_server, COHERE_V1)["results"]


def test_v1_limit_of_chunks(qwen_server: Server) -> None:
    sentence = "number of total max chunks (number of documents * max chunks per doc) must be less than 10000"
    for num_documents, chunks in ((1000, None), (1000, 10), (1250, 8), (1, 10_000)):
        told = refusal(qwen_server, COHERE_V1, QUERY, ["a"] * num_documents, max_chunks_per_doc=chunks)
        assert told.startswith(f"invalid request: {sentence}")
    for num_documents, chunks in ((999, None), (1111, 9), (1, 9_999)):
        body = reply(qwen_server, COHERE_V1, QUERY, ["a"] * num_documents, max_chunks_per_doc=chunks, top_n=1)
        assert len(body["results"]) == 1


def test_v1_a_document_is_not_cut_at_version_2s_default(qwen_server: Server) -> None:
    assert reply(qwen_server, COHERE_V1, QUERY, [" the" * 5000])["meta"]["warnings"] == []


# Version 2.


def test_v2_shows_documents_when_asked(qwen_server: Server) -> None:
    """LiteLLM asks with every call, and reads their text."""
    body = reply(qwen_server, COHERE_V2, return_documents=True)
    assert all(row["document"] == {"text": DOCUMENTS[row["index"]]} for row in body["results"])
    assert body["meta"]["warnings"] == []


@pytest.mark.parametrize(("limit", "kept"), [(None, 4096), (3, 3), (4100, 4100), ("7", 7)])
def test_v2_long_documents_are_cut_with_a_warning(limit: Any, kept: int, qwen_server: Server) -> None:
    documents = [" the" * 5000, "A"]
    body = reply(qwen_server, COHERE_V2, QUERY, documents, max_tokens_per_doc=limit)
    [warning] = body["meta"]["warnings"]
    assert re.fullmatch(rf"document 0 truncated from (5000|more than \d+) to {kept} tokens", warning)
    cut = reply(qwen_server, COHERE_V2, QUERY, [" the" * kept, "A"], max_tokens_per_doc=5000)
    assert body["results"] == [
        {"index": row["index"], "relevance_score": pytest.approx(row["relevance_score"], abs=1e-6)}
        for row in cut["results"]
    ]


@BOTH
def test_a_query_over_2048_tokens_is_cut_with_a_warning(folder: Surface, qwen_server: Server) -> None:
    assert reply(qwen_server, folder, " the" * 2048)["meta"]["warnings"] == []
    warnings = reply(qwen_server, folder, " the" * 2100)["meta"]["warnings"]
    assert warnings == ["query truncated from 2100 to 2048 tokens"]


def test_v2_a_lower_priority_is_computed_first() -> None:
    model = NumberedModel()
    model.gate.clear()
    scorer = scorer_of(model)

    def send(number: int, **options: Any) -> int:
        body = COHERE_V2.body("q", [str(number)], **options)
        return client.post(COHERE_V2.path, json=body).status_code

    with serving(lambda progress: scorer) as client, ThreadPoolExecutor() as pool:
        sent = [pool.submit(send, 0)]
        assert model.entered.wait(60)
        for place, priority in enumerate((5, None, 999, 4), start=1):
            sent.append(pool.submit(send, place, priority=priority))
            _wait_for(scorer, 1 + place)
        model.gate.set()
        assert [one.result(60) for one in sent] == [200] * 5
    assert model.seen == ["0", "2", "4", "1", "3"]


def _wait_for(scorer: EngineScorer, num_queued: int) -> None:
    """Until so many requests wait or run."""
    wait_until(lambda: scorer.engine.num_queued >= num_queued)


def test_v2_says_that_no_spans_are_found(qwen_server: Server) -> None:
    spans = {"mode": "enabled", "threshold": 0.1, "max_spans": 3}
    warnings = reply(qwen_server, COHERE_V2, relevant_spans=spans)["meta"]["warnings"]
    assert warnings == ["relevant_spans ignored: no spans are found"]
    assert reply(qwen_server, COHERE_V2, relevant_spans={"mode": "disabled"})["meta"]["warnings"] == []


def test_v2_allows_10000_documents(qwen_server: Server) -> None:
    assert len(reply(qwen_server, COHERE_V2, QUERY, ["a"] * 10_000, top_n=2)["results"]) == 2
    assert "to 10000 are allowed" in refusal(qwen_server, COHERE_V2, QUERY, ["a"] * 10_001)


# The documented sentences.

UNRANKABLE = "document does not have a 'snippet' or a 'text' field that can be used for chunking and reranking"
SENTENCES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"documents": []}, "invalid request: list of documents must not be empty"),
    ({"documents": ["a", ""]}, "invalid request: document at index 1 cannot be empty"),
    ({"documents": [{"text": ""}]}, "invalid request: document at index 0 cannot be empty"),
    ({"query": ""}, "invalid request: query must not be empty or be only whitespace"),
    ({"query": " \n\t"}, "invalid request: query must not be empty or be only whitespace"),
    ({"top_n": 0}, "invalid request: top_n: Input should be greater than or equal to 1"),
    ({"documents": [3]}, "invalid request: documents.0: Input should be a valid string"),
)


@BOTH
def test_sentences_of_bad_requests(folder: Surface, qwen_server: Server, subtests: pytest.Subtests) -> None:
    for change, sentence in SENTENCES:
        with subtests.test(repr(change)):
            response = qwen_server.post(folder.path, {**folder.body(), **change})
            assert folder.error(response, 400).startswith(sentence)


def test_v1_sentences(qwen_server: Server) -> None:
    assert refusal(qwen_server, COHERE_V1, rank_fields=[]) == (
        "invalid request: rank_fields cannot be empty, it must either contain at least one field or be omitted"
    )
    for bad in ({"title": "a"}, {}, {"text": 3}, {"text": None}):
        told = refusal(qwen_server, COHERE_V1, QUERY, ["a", bad])
        assert told == f"{UNRANKABLE} (documents.1)"
    told = refusal(qwen_server, COHERE_V1, QUERY, [{"a": "x"}, {"b": "y"}], rank_fields=["a"])
    assert told == "invalid request: documents.1: the document has none of the rank_fields (a)"


def test_v2_needs_a_model(qwen_server: Server) -> None:
    body = COHERE_V2.body()
    del body["model"]
    response = qwen_server.post(COHERE_V2.path, body)
    assert COHERE_V2.error(response, 400) == "a model parameter is required for this endpoint."


@pytest.mark.parametrize("change", [{"priority": -1}, {"priority": 1000}, {"max_tokens_per_doc": 0}])
def test_v2_ranges(change: dict[str, Any], qwen_server: Server) -> None:
    assert f"invalid request: {next(iter(change))}" in refusal(qwen_server, COHERE_V2, **change)


@BOTH
def test_other_sentences(folder: Surface, qwen_server: Server) -> None:
    def message(status: int, *, key: str | None = None, **options: Any) -> str:
        return folder.error(qwen_server.post(folder.path, folder.body(**options), key=key), status)

    keyless = qwen_server.post(folder.path, folder.body(), headers={"authorization": ""})
    assert folder.error(keyless, 401) == "no api key supplied"
    assert message(401, key="wrong") == "invalid api token"
    assert message(404, model="xyz").startswith(
        "model 'xyz' not found, make sure the correct model ID was used and that you have access to the model."
    )
    broken = qwen_server.post(folder.path, content=b"{", headers={"content-type": "application/json"})
    assert folder.error(broken, 400).startswith("invalid json syntax: ")
