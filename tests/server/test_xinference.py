"""Xinference: every field of its request, nulls and strings as its clients read and send them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from support.server import Server
from support.surfaces import DOCUMENTS, QUERY, RERANK, XINFERENCE


def post(server: Server, *texts: Any, **options: Any) -> httpx2.Response:
    return server.post(XINFERENCE.path, XINFERENCE.body(*texts, **options))


def reply(server: Server, *texts: Any, **options: Any) -> Any:
    response = post(server, *texts, **options)
    assert response.status_code == 200, response.text[:1000]
    return response.json()


def test_the_reply(qwen_server: Server) -> None:
    response = post(qwen_server)
    body = response.json()
    assert set(body) == {"id", "results", "meta"}
    assert body["id"] == response.headers["x-request-id"]
    assert all(set(row) == {"index", "relevance_score", "document"} for row in body["results"])
    assert all(row["document"] is None for row in body["results"])
    assert body["meta"] == {"api_version": None, "billed_units": None, "tokens": None, "warnings": None}


@pytest.mark.parametrize("asked", [True, "true", "True"])
def test_documents_and_tokens_when_asked_for(asked: Any, qwen_server: Server) -> None:
    body = reply(qwen_server, return_documents=asked, return_len=asked)
    shown = {row["index"]: row["document"] for row in body["results"]}
    assert shown == {index: {"text": text} for index, text in enumerate(DOCUMENTS)}
    prompt_tokens = qwen_server.post(RERANK.path, RERANK.body()).json()["usage"]["prompt_tokens"]
    assert body["meta"]["tokens"] == {"input_tokens": prompt_tokens, "output_tokens": prompt_tokens}


def test_documents_and_the_query_may_be_objects(qwen_server: Server) -> None:
    documents = [{"text": text, "id": index} for index, text in enumerate(DOCUMENTS)]
    body = reply(qwen_server, {"text": QUERY}, documents, return_documents=True)
    assert {row["index"]: row["document"] for row in body["results"]} == dict(enumerate(documents))
    scores = [(row["index"], row["relevance_score"]) for row in body["results"]]
    assert scores == XINFERENCE.scores(post(qwen_server))


def test_a_top_n_of_0_is_all(qwen_server: Server) -> None:
    assert len(reply(qwen_server, top_n=0)["results"]) == 3


def test_texts_that_fit_are_not_chunked(qwen_server: Server) -> None:
    assert reply(qwen_server, max_chunks_per_doc=3)["results"] == reply(qwen_server)["results"]


@pytest.mark.parametrize("name", ["instruction", "instruct"])
def test_kwargs_may_hold_the_instruct(name: str, qwen_server: Server) -> None:
    told = reply(qwen_server, kwargs=json.dumps({name: "Find texts about bread"}))
    assert told["results"] == reply(qwen_server, instruct="Find texts about bread")["results"]
    assert told["results"] != reply(qwen_server)["results"]
    assert told["meta"]["warnings"] is None


def test_kwargs_sent_twice_as_the_client_does(qwen_server: Server) -> None:
    """xinference-client writes them into `kwargs`, and beside it."""
    instruction = "Find texts about bread"
    body = reply(qwen_server, kwargs=json.dumps({"instruction": instruction}), instruction=instruction)
    assert body["meta"]["warnings"] is None


def test_what_else_is_in_kwargs_is_ignored_with_a_warning(qwen_server: Server) -> None:
    body = reply(qwen_server, kwargs='{"batch_size": 4, "instruction": "A", "instruct": "B"}')
    assert body["meta"]["warnings"] == [
        "kwargs.instruct ignored: kwargs.instruction says something else",
        "kwargs.batch_size ignored",
    ]


@pytest.mark.parametrize("kwargs", ["{", "[]", "3", '"text"', "null", "[" * 100_000])
def test_kwargs_that_are_no_object(kwargs: str, qwen_server: Server) -> None:
    assert "kwargs" in XINFERENCE.error(post(qwen_server, kwargs=kwargs), 400)


@pytest.mark.parametrize("kwargs", [None, "", "{}"])
def test_kwargs_that_say_nothing(kwargs: str | None, qwen_server: Server) -> None:
    assert reply(qwen_server, kwargs=kwargs)["results"] == reply(qwen_server)["results"]


def test_mistakes_are_named(qwen_server: Server) -> None:
    assert XINFERENCE.error(qwen_server.post(XINFERENCE.path, {}), 400) == (
        "model: Field required; query: Field required; documents: Field required"
    )
    assert XINFERENCE.error(post(qwen_server, top_n=-1), 400) == "top_n: Input should be greater than or equal to 0"


def get(server: Server, path: str, key: str | None = None) -> httpx2.Response:
    headers = {"authorization": f"Bearer {server.key if key is None else key}"}
    return httpx2.get(f"{server.url}/xinference/v1{path}", headers=headers, timeout=60)


def test_a_client_learns_that_its_key_is_wanted(qwen_server: Server) -> None:
    assert httpx2.get(f"{qwen_server.url}/xinference/v1/cluster/auth").json() == {"auth": True}


@pytest.mark.parametrize("name", ["qwen3-rerank", "gte-rerank"])
def test_a_client_learns_what_a_model_is_for(name: str, qwen_server: Server) -> None:
    model = get(qwen_server, f"/models/{name}").json()
    assert (model["model_type"], model["model_uid"]) == ("rerank", name)
    assert {**model, "id": name, "object": "model"} in get(qwen_server, "/models").json()["data"]


def test_a_name_with_a_slash(embedded_server: Server) -> None:
    assert get(embedded_server, "/models/Qwen/Qwen3-Reranker-4B").json()["model_type"] == "rerank"


def test_an_unknown_model_and_a_wrong_key_are_told_in_detail(qwen_server: Server) -> None:
    unknown = get(qwen_server, "/models/nobody/nothing")
    assert unknown.status_code == 400 and "`nobody/nothing`" in unknown.json()["detail"]
    for path in ("/models", "/models/qwen3-rerank"):
        refused = get(qwen_server, path, key="wrong-key")
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert isinstance(refused.json()["detail"], str)
