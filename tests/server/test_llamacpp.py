"""llama.cpp: its four paths in a folder, its own form and the one of `texts`; the rest of `/v1/reranking`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from support.faults import FAULTS, small
from support.server import Server
from support.surfaces import DOCUMENTS, LLAMA_CPP, QUERY, RERANK

PATHS = tuple(f"/llamacpp{path}" for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking"))


@pytest.fixture(scope="module")
def rerank(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts to /llamacpp/rerank."""
    return lambda **fields: qwen_server.post(LLAMA_CPP.path, LLAMA_CPP.body(**fields))


@pytest.fixture(scope="module")
def texts(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts `texts` to /llamacpp/rerank."""
    return lambda **fields: qwen_server.post(LLAMA_CPP.path, {"query": QUERY, "texts": list(DOCUMENTS), **fields})


# Its own form.


@pytest.mark.parametrize("path", PATHS)
def test_the_same_pairs_have_the_same_scores_as_on_v1_rerank(path: str, qwen_server: Server) -> None:
    expected = RERANK.scores(qwen_server.post(RERANK.path, RERANK.body()))
    assert LLAMA_CPP.scores(qwen_server.post(path, LLAMA_CPP.body())) == expected


def test_the_reply(rerank: Callable[..., httpx2.Response]) -> None:
    reply = rerank(explain=True, return_documents=True).json()
    assert set(reply) == {"model", "object", "usage", "results"} and reply["object"] == "list"
    tokens = sum(result["explain"]["prompt_tokens"] for result in reply["results"])
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert all(set(result) == {"index", "relevance_score", "explain"} for result in reply["results"])  # no document


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), (99, 3), (None, 3), (0, 0)])
def test_top_n_and_0_is_none(top_n: int | None, expected: int, rerank: Callable[..., httpx2.Response]) -> None:
    assert LLAMA_CPP.scores(rerank(top_n=top_n)) == LLAMA_CPP.scores(rerank())[:expected]
    assert rerank(top_n=top_n).json()["usage"] == rerank().json()["usage"]


def test_any_model_is_echoed(rerank: Callable[..., httpx2.Response]) -> None:
    assert rerank(model="nope").json()["model"] == "nope"
    assert "model substituted: nope was asked for" in rerank(model="nope").headers["x-rerankd-warning"]
    for name in (None, ""):
        response = rerank(model=name)
        assert response.json()["model"] == response.headers["x-rerankd-model"]


@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_the_instruct_has_two_names(name: str, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(**{name: "Find texts about bread"})
    assert LLAMA_CPP.scores(response) != LLAMA_CPP.scores(rerank())
    assert "x-rerankd-warning" not in response.headers


# The form of `texts`.


def test_the_key_texts_selects_the_bare_list(
    rerank: Callable[..., httpx2.Response], texts: Callable[..., httpx2.Response]
) -> None:
    expected = [{"index": index, "score": score} for index, score in LLAMA_CPP.scores(rerank())]
    assert texts().json() == expected
    assert rerank(texts=["other"]).json() == expected  # documents are what is scored
    assert rerank(texts=None).json() == expected


@pytest.mark.parametrize(("asked", "there"), [(None, 0), (False, 0), (True, 1), ("true", 1)])
def test_return_text(asked: Any, there: int, texts: Callable[..., httpx2.Response]) -> None:
    for rank in texts(return_text=asked).json():
        assert rank.get("text", "absent") == (DOCUMENTS[rank["index"]] if there else "absent")


def test_ties_keep_the_callers_order(texts: Callable[..., httpx2.Response]) -> None:
    """Not reversed, as in text-embeddings-inference."""
    assert [rank["index"] for rank in texts(texts=["a", "a", "a"]).json()] == [0, 1, 2]


def test_top_n_of_texts(texts: Callable[..., httpx2.Response]) -> None:
    assert texts(top_n=2).json() == texts().json()[:2]
    assert texts(top_n=0).json() == []


# Errors.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"documents": ["a"]}, '"query" must be provided'),
        ({"query": None, "documents": ["a"]}, '"query" must be a string'),
        ({"query": 3, "documents": ["a"]}, '"query" must be a string'),
        ({"query": "a"}, '"documents" must be a non-empty string array'),
        ({"query": "a", "documents": []}, '"documents" must be a non-empty string array'),
        ({"query": "a", "documents": "b"}, '"documents" must be a non-empty string array'),
        ({"query": "a", "documents": [3]}, '"documents" must be a non-empty string array'),
        ({"query": "a", "texts": []}, '"documents" must be a non-empty string array'),
        ({"query": "a", "documents": ["b"], "top_n": -1}, "top_n: "),
    ],
)
def test_error_invalid_request(body: dict[str, Any], message: str, qwen_server: Server) -> None:
    response = qwen_server.post(LLAMA_CPP.path, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.pop("message").startswith(message)
    assert error == {"code": 400, "type": "invalid_request_error"}


def test_error_missing_or_wrong_key(qwen_server: Server) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        response = httpx2.post(qwen_server.url + LLAMA_CPP.path, json=LLAMA_CPP.body(), headers=headers)
        assert response.status_code == 401
        assert response.json() == {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}}


def test_error_too_long(rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(documents=["word " * 9000])
    assert response.status_code == 400 and response.json()["error"]["type"] == "exceed_context_size_error"


def test_error_body_too_large() -> None:
    with small() as client:
        response = client.post(LLAMA_CPP.path, content=b" " * 1_000_001)
    assert "1 MB" in LLAMA_CPP.error(response, 413)


@pytest.mark.parametrize(("fault", "status"), [("loading", 503), ("busy", 503), ("rate limit", 429), ("internal", 500)])
def test_error(fault: str, status: int) -> None:
    with FAULTS[fault]() as client:
        response = client.post(LLAMA_CPP.path, json=LLAMA_CPP.body(documents=["2"]))
        LLAMA_CPP.error(response, status)
        assert "secret" not in response.text


# Paths of several dialects.


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking"])
def test_reranking_is_llama_cpp_unless_it_has_input(path: str, qwen_server: Server) -> None:
    expected = qwen_server.post(LLAMA_CPP.path, LLAMA_CPP.body(top_n=2)).json()
    assert qwen_server.post(path, LLAMA_CPP.body(top_n=2)).json() == expected
    assert isinstance(qwen_server.post(path, {"query": QUERY, "texts": list(DOCUMENTS)}).json(), list)
    assert "data" in qwen_server.post(path, {"query": QUERY, "input": list(DOCUMENTS)}).json()  # Mixedbread's
    assert qwen_server.post(path, content=b"{").json()["error"]["type"] == "invalid_request_error"
