"""Voyage: every documented field and limit, and its sentences."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from support.server import Server
from support.surfaces import DOCUMENTS, QUERY, VOYAGE


def post(server: Server, *texts: Any, **options: Any) -> httpx2.Response:
    return server.post(VOYAGE.path, VOYAGE.body(*texts, **options))


def reply(server: Server, *texts: Any, **options: Any) -> Any:
    response = post(server, *texts, **options)
    assert response.status_code == 200, response.text[:1000]
    return response.json()


def refusal(server: Server, *texts: Any, **options: Any) -> str:
    return VOYAGE.error(post(server, *texts, **options), 400)


def test_the_reply(qwen_server: Server) -> None:
    body = reply(qwen_server)
    assert set(body) == {"object", "data", "model", "usage"}
    assert body["object"] == "list" and body["model"] == "qwen3-rerank"
    assert all(set(row) == {"relevance_score", "index"} for row in body["data"])


def test_total_tokens_go_by_the_documented_formula(qwen_server: Server) -> None:
    """query tokens × documents + tokens of all documents, the template not counted."""
    query, documents = " the" * 7, [" the" * 3, " the" * 5]
    assert reply(qwen_server, query, documents)["usage"] == {"total_tokens": 7 * 2 + 3 + 5}


def test_documents_are_returned_as_strings_when_asked_for(qwen_server: Server) -> None:
    rows = reply(qwen_server, return_documents=True)["data"]
    assert {row["index"]: row["document"] for row in rows} == dict(enumerate(DOCUMENTS))
    for asked in (None, False):
        assert all("document" not in row for row in reply(qwen_server, return_documents=asked)["data"])


def test_up_to_1000_documents(qwen_server: Server) -> None:
    assert len(reply(qwen_server, QUERY, ["a"] * 1000)["data"]) == 1000
    assert "1001 documents; from 1 to 1000 are allowed" in refusal(qwen_server, QUERY, ["a"] * 1001)
    assert "from 1 to 1000" in refusal(qwen_server, QUERY, [])


def test_an_empty_document_is_told_by_its_index(qwen_server: Server) -> None:
    told = refusal(qwen_server, QUERY, ["a", "", "b"])
    assert told == "documents.1: Input cannot contain empty strings"


@pytest.mark.parametrize("truncation", [None, True])
def test_long_texts_are_cut_with_a_warning(truncation: bool | None, qwen_server: Server) -> None:
    response = post(qwen_server, " the" * 8050, ["A"], truncation=truncation)
    assert response.headers["x-rerankd-warning"] == "query truncated from 8050 to 8000 tokens"
    assert response.json()["usage"] == {"total_tokens": 8000 + 1}
    response = post(qwen_server, QUERY, ["A", " the" * 9000], truncation=truncation)
    assert response.status_code == 200
    assert response.headers["x-rerankd-warning"].startswith("document 1 truncated from 9000 to 8")


def test_without_truncation_a_long_query_is_refused(qwen_server: Server) -> None:
    told = refusal(qwen_server, " the" * 8001, ["A"], truncation=False)
    assert told == (
        "Request failed. The query has too many tokens and does not fit into the model's context window of 8000 "
        "tokens. Please lower the number of tokens in the query or use truncation."
    )
    assert len(reply(qwen_server, " the" * 8000, ["A"], truncation=False)["data"]) == 1


def test_without_truncation_a_long_document_is_refused(qwen_server: Server) -> None:
    for document in (" the" * 8192, "word " * 1_000_000):
        told = refusal(qwen_server, QUERY, ["A", document], truncation=False)
        assert told == (
            "Request failed. The example at index 1 in your batch has too many tokens and does not fit into the "
            "model's context window of 8192 tokens. Please lower the number of tokens in the listed example(s) or use "
            "truncation."
        )
    assert len(reply(qwen_server, QUERY, ["A", " the" * 8000], truncation=False)["data"]) == 2


def test_without_truncation_a_small_model_refuses_too(embedded_server: Server) -> None:
    """What would be cut because of the model's own window is refused as well."""
    told = refusal(embedded_server, QUERY, ["short", "word " * 9000], truncation=False)
    assert "example at index 1" in told and "context window of 8192 tokens" in told
    assert len(reply(embedded_server, QUERY, ["short"], truncation=False)["data"]) == 1


def test_a_batch_over_600000_tokens_is_refused(qwen_server: Server) -> None:
    told = refusal(qwen_server, " the" * 600, [" the"] * 1000)
    assert told == (
        "Request failed. The max allowed tokens per submitted batch is 600000. Your batch has 601000 tokens after "
        "truncation. Please lower the number of tokens in the batch."
    )


def test_an_instruct_that_leaves_no_room_is_refused(qwen_server: Server) -> None:
    assert "The instruct has 9000 tokens; at most 1024 are allowed" in refusal(qwen_server, instruct=" the" * 9000)


def test_mistakes_are_named(qwen_server: Server) -> None:
    assert refusal(qwen_server, top_n=0) == "top_k: Input should be greater than or equal to 1"
    assert refusal(qwen_server, truncation="perhaps").startswith("truncation: Input should be a valid boolean")
    assert VOYAGE.error(qwen_server.post(VOYAGE.path, {}), 400) == (
        "model: Field required; query: Field required; documents: Field required"
    )
