"""SGLang: POST and PUT, in its folder; PUT alone on `/v1/rerank`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from support.faults import FAULTS
from support.server import Server
from support.surfaces import DOCUMENTS, QUERY, RERANK, SGLANG


@pytest.fixture(scope="module")
def rerank(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts to /sglang/v1/rerank."""
    return lambda **fields: qwen_server.post(SGLANG.path, SGLANG.body(**fields))


# The reply and the fields.


def test_the_same_pairs_have_the_same_scores_as_on_v1_rerank(
    rerank: Callable[..., httpx2.Response], qwen_server: Server
) -> None:
    assert SGLANG.scores(rerank()) == RERANK.scores(qwen_server.post(RERANK.path, RERANK.body()))


@pytest.mark.parametrize("path", ["/v1/rerank", "/sglang/v1/rerank"])
def test_put_is_sglang(path: str, rerank: Callable[..., httpx2.Response], qwen_server: Server) -> None:
    headers = {"authorization": f"Bearer {qwen_server.key}"}
    response = httpx2.put(qwen_server.url + path, json=SGLANG.body(), headers=headers)
    assert response.status_code == 200 and response.json() == rerank().json()
    refused = httpx2.put(qwen_server.url + path, json=SGLANG.body(documents=[]), headers=headers)
    assert refused.json()["object"] == "error"


def test_post_on_v1_rerank_is_not_sglang(qwen_server: Server) -> None:
    assert "results" in qwen_server.post("/v1/rerank", SGLANG.body(return_documents=True)).json()


@pytest.mark.parametrize(("asked", "there"), [(None, 1), (True, 1), ("true", 1), (False, 0), ("false", 0)])
def test_documents_are_strings_and_there_by_default(
    asked: Any, there: int, rerank: Callable[..., httpx2.Response]
) -> None:
    for result in rerank(return_documents=asked).json():
        assert result["meta_info"] is None
        assert result.get("document", "absent") == (DOCUMENTS[result["index"]] if there else "absent")
        assert set(result) - {"document"} == {"score", "index", "meta_info"}


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), ("2", 2), (99, 3), (None, 3)])
def test_top_n(top_n: Any, expected: int, rerank: Callable[..., httpx2.Response]) -> None:
    assert rerank(top_n=top_n).json() == rerank().json()[:expected]


def test_ties_keep_the_callers_order(rerank: Callable[..., httpx2.Response]) -> None:
    assert [index for index, _ in SGLANG.scores(rerank(documents=["a", "a", "a"]))] == [0, 1, 2]


@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_the_instruct_has_two_names(name: str, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(**{name: "Find texts about bread"})
    assert SGLANG.scores(response) != SGLANG.scores(rerank())
    assert "x-rerankd-warning" not in response.headers


def test_query_and_documents_may_be_parts(rerank: Callable[..., httpx2.Response]) -> None:
    def parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    response = rerank(query=parts(QUERY), documents=[parts(text) for text in DOCUMENTS])
    assert response.json() == rerank().json()
    assert rerank(documents=[{"text": text} for text in DOCUMENTS]).json() == rerank().json()
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    assert "only parts of the type 'text'" in SGLANG.error(rerank(documents=["a", image]), 400)


def test_the_model_is_ignored_with_a_warning(rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(model="any")
    assert response.json() == rerank().json()
    assert "model substituted: any was asked for" in response.headers["x-rerankd-warning"]


# Errors.


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"query": ""}, "Query cannot be empty", None),
        ({"query": "  "}, "Query cannot be empty or whitespace only", None),
        ({"documents": []}, "Documents cannot be empty", None),
        ({"documents": ["a", ""]}, "documents.1: Each document must be a non-empty string", "documents.1"),
        ({"documents": [" "]}, "documents.0: Each document cannot be empty or whitespace only", "documents.0"),
        ({"top_n": 0}, "top_n: Value error, parameter top_n should be larger than 0.", "top_n"),
        ({"top_n": -1}, "top_n: Value error, parameter top_n should be larger than 0.", "top_n"),
        ({"return_documents": "perhaps"}, "return_documents: ", "return_documents"),
    ],
)
def test_error_bad_request(
    fields: dict[str, Any], message: str, param: str | None, rerank: Callable[..., httpx2.Response]
) -> None:
    response = rerank(**fields)
    assert response.status_code == 400
    error = response.json()
    assert error.pop("message").startswith(message)
    assert error == {"object": "error", "type": "BadRequestError", "param": param, "code": 400}


def test_error_missing_or_wrong_key(qwen_server: Server) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        response = httpx2.post(qwen_server.url + SGLANG.path, json=SGLANG.body(), headers=headers)
        assert "API" in SGLANG.error(response, 401)


@pytest.mark.parametrize(("fault", "status"), [("loading", 503), ("busy", 503), ("rate limit", 429), ("internal", 500)])
def test_error(fault: str, status: int) -> None:
    with FAULTS[fault]() as client:
        response = client.post(SGLANG.path, json=SGLANG.body(documents=["2"]))
        SGLANG.error(response, status)
        assert "secret" not in response.text
