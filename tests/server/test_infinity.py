"""Infinity: `/rerank`, `/models` and `/health`, in its folder and under the prefix that is set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from support.fakes import NumberedModel, scorer_of
from support.faults import FAULTS, small
from support.server import Server, refusal
from support.serving import serving
from support.surfaces import DOCUMENTS, INFINITY, QUERY, RERANK

LIMIT = 122_880


@pytest.fixture(scope="module")
def rerank(qwen_server: Server) -> Callable[..., httpx2.Response]:
    """Posts to /infinity/rerank."""
    return lambda **fields: qwen_server.post(INFINITY.path, INFINITY.body(**fields))


def _detail(response: httpx2.Response) -> list[tuple[str, list[Any]]]:
    """(type, loc) of each mistake."""
    assert response.status_code == 422
    return [(mistake["type"], mistake["loc"]) for mistake in response.json()["detail"]]


# The reply.


def test_the_same_pairs_have_the_same_scores_as_on_v1_rerank(
    rerank: Callable[..., httpx2.Response], qwen_server: Server
) -> None:
    assert INFINITY.scores(rerank()) == RERANK.scores(qwen_server.post(RERANK.path, RERANK.body()))


def test_the_reply(rerank: Callable[..., httpx2.Response], qwen_server: Server) -> None:
    before = int(time.time())
    response = rerank(explain=True)
    reply = response.json()
    assert set(reply) == {"object", "results", "model", "usage", "id", "created"}
    assert reply["object"] == "rerank"
    assert reply["model"] == response.headers["x-rerankd-model"]
    assert reply["id"] == f"infinity-{response.headers['x-request-id']}"
    assert isinstance(reply["created"], int) and before <= reply["created"] <= time.time()
    tokens = sum(result["explain"]["prompt_tokens"] for result in reply["results"])
    assert reply["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


# The fields.


@pytest.mark.parametrize(("asked", "there"), [(None, 0), (False, 0), ("false", 0), (True, 1), ("true", 1)])
def test_a_document_is_a_bare_string_or_null(asked: Any, there: int, rerank: Callable[..., httpx2.Response]) -> None:
    for result in rerank(return_documents=asked).json()["results"]:
        assert set(result) == {"relevance_score", "index", "document"}
        assert result["document"] == (DOCUMENTS[result["index"]] if there else None)


def test_raw_scores(rerank: Callable[..., httpx2.Response]) -> None:
    for (_, score), (_, logit) in zip(
        INFINITY.scores(rerank()), INFINITY.scores(rerank(raw_scores="true")), strict=True
    ):
        assert score == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize(("top_n", "expected"), [(1, 1), ("2", 2), (99, 3), (None, 3)])
def test_top_n(top_n: Any, expected: int, rerank: Callable[..., httpx2.Response]) -> None:
    assert INFINITY.scores(rerank(top_n=top_n)) == INFINITY.scores(rerank())[:expected]


@pytest.mark.parametrize("top_n", [0, -1])
def test_error_top_n_must_be_over_0(top_n: int, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(top_n=top_n)
    assert response.json() == {
        "detail": [
            {
                "type": "greater_than",
                "loc": ["body", "top_n"],
                "msg": "Input should be greater than 0",
                "input": top_n,
            }
        ]
    }


def test_whitespace_around_a_text_is_stripped(rerank: Callable[..., httpx2.Response]) -> None:
    padded = rerank(
        query=f"  {QUERY}\n", documents=[f"\t{text} " for text in DOCUMENTS], return_documents=True, explain=True
    )
    assert padded.json()["results"] == rerank(return_documents=True, explain=True).json()["results"]


def test_a_text_may_have_122880_characters(rerank: Callable[..., httpx2.Response]) -> None:
    fits = ("word " * LIMIT)[: LIMIT - 1] + "."
    response = rerank(documents=[f"  {fits}  "])
    assert len(INFINITY.scores(response)) == 1
    assert "document 0 truncated from" in response.headers["x-rerankd-warning"]  # cut at the served context
    assert _detail(rerank(documents=["a", fits + "."])) == [("string_too_long", ["body", "documents", 1])]
    assert _detail(rerank(query=fits + ".")) == [("string_too_long", ["body", "query"])]


def test_ties_keep_the_callers_order(rerank: Callable[..., httpx2.Response]) -> None:
    assert [index for index, _ in INFINITY.scores(rerank(documents=["a", "a", "a"]))] == [0, 1, 2]


@pytest.mark.parametrize("name", [None, "", "default/not-specified", "qwen3-rerank"])
def test_the_model_need_not_be_named(name: str | None, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(model=name)
    assert response.status_code == 200 and "x-rerankd-warning" not in response.headers


def test_any_name_is_answered_with_a_warning(rerank: Callable[..., httpx2.Response]) -> None:
    """As recorded of a server with one model."""
    response = rerank(model="BAAI/bge-reranker-base")
    assert response.json()["model"] == response.headers["x-rerankd-model"]
    assert "model substituted: BAAI/bge-reranker-base was asked for" in response.headers["x-rerankd-warning"]


@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_the_instruct_has_two_names(name: str, rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(**{name: "Find texts about bread"})
    assert INFINITY.scores(response) != INFINITY.scores(rerank())
    assert "x-rerankd-warning" not in response.headers


def test_documents_may_be_objects(rerank: Callable[..., httpx2.Response]) -> None:
    response = rerank(documents=[{"text": f" {text}"} for text in DOCUMENTS], return_documents=True)
    assert response.json()["results"] == rerank(return_documents=True).json()["results"]


# Errors.


def test_error_validation_is_fastapis(rerank: Callable[..., httpx2.Response], qwen_server: Server) -> None:
    assert _detail(rerank(documents=[])) == [("too_short", ["body", "documents"])]
    assert _detail(rerank(query=None)) == [("string_type", ["body", "query"])]
    assert _detail(rerank(documents=["a", 3])) == [("string_type", ["body", "documents", 1])]
    assert _detail(qwen_server.post(INFINITY.path, {"query": "a"})) == [("missing", ["body", "documents"])]
    assert _detail(qwen_server.post(INFINITY.path, content=b'{"a')) == [("json_invalid", ["body", 1])]
    assert _detail(qwen_server.post(INFINITY.path, content=b"")) == [("missing", ["body"])]
    assert _detail(qwen_server.post(INFINITY.path, [1])) == [("model_attributes_type", ["body"])]


def test_error_missing_or_wrong_key(qwen_server: Server) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        for response in (
            httpx2.post(qwen_server.url + INFINITY.path, json=INFINITY.body(), headers=headers),
            httpx2.get(f"{qwen_server.url}/infinity/models", headers=headers),
        ):
            assert response.status_code == 401 and response.json() == {"detail": "Unauthorized"}
            assert response.headers["www-authenticate"] == "Bearer"


def test_error_another_method(qwen_server: Server) -> None:
    response = httpx2.get(qwen_server.url + INFINITY.path)
    assert response.status_code == 405 and response.json() == {"detail": "Method Not Allowed"}


def test_error_body_too_large() -> None:
    with small() as client:
        response = client.post(INFINITY.path, content=b" " * 1_000_001)
    assert response.status_code == 413 and "1 MB" in response.json()["detail"]


@pytest.mark.parametrize(("fault", "status"), [("loading", 503), ("busy", 429), ("rate limit", 429), ("internal", 500)])
def test_error(fault: str, status: int) -> None:
    with FAULTS[fault]() as client:
        response = client.post(INFINITY.path, json=INFINITY.body(documents=["2"]))
        INFINITY.error(response, status)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert "secret" not in response.text


# What is asked with GET, and the prefix.


def test_models(qwen_server: Server) -> None:
    headers = {"authorization": f"Bearer {qwen_server.key}"}
    listed = httpx2.get(f"{qwen_server.url}/infinity/models", headers=headers).json()
    [model] = listed["data"]
    assert listed["object"] == "list"
    assert (model["object"], model["owned_by"], model["capabilities"]) == ("model", "infinity", ["rerank"])
    assert model["stats"] == {"queue_fraction": 0, "queue_absolute": 0}
    assert qwen_server.post(INFINITY.path, INFINITY.body(model=model["id"])).json()["model"] == model["id"]


def test_health(qwen_server: Server) -> None:
    before = time.time()
    assert before <= httpx2.get(f"{qwen_server.url}/infinity/health").json()["unix"] <= time.time()


def test_health_and_models_while_loading() -> None:
    with FAULTS["loading"]() as client:
        for path in ("/infinity/health", "/infinity/models"):
            response = client.get(path)
            assert response.status_code == 503 and response.json()["error"]["code"] == 503
            assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("prefix", ["", "/v1", "/some/where"])
def test_the_prefix_is_a_setting(prefix: str) -> None:
    with serving(lambda progress: scorer_of(NumberedModel()), infinity_prefix=prefix) as client:
        for path in (f"{prefix}/rerank", "/infinity/rerank"):
            reply = client.post(path, json=INFINITY.body(documents=["1"], return_documents=True)).json()
            assert reply["object"] == "rerank" and reply["results"][0]["document"] == "1"
        assert "data" in client.get(f"{prefix}/models").json()
        other = "/rerank" if prefix == "/v1" else "/v1/rerank"
        assert client.post(other, json=RERANK.body(documents=["1"])).json()["object"] == "list"  # as before
        assert client.get("/health").json()["status"] == "ok"
        assert f"{prefix}/rerank" in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("prefix", ["v1", "/v1/", "/a b", "/"])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    assert "infinity-prefix" in refusal("--model", "embedded", "--infinity-prefix", prefix)
