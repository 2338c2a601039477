"""The SDKs that Qwen Cloud's pages name, openai and dashscope, against a running server: a success and a wrong key."""

from __future__ import annotations

from typing import Any

import dashscope
import openai
import pytest
from dashscope.v2.errors import AuthenticationError as DashScopeAuthenticationError

from support.server import Server

QUERY = "What is a reranking model"
DOCUMENTS = [
    "Quantum computing is a frontier field of computational science",
    "Reranking models are widely used in search engines to rank candidate texts by relevance",
    "The development of pre-trained language models has brought new advances to reranking models",
]
CALL: dict[str, Any] = {"model": "qwen3-rerank", "query": QUERY, "documents": DOCUMENTS}
SIMILARITY = "Retrieve semantically similar text."

ON_THE_SUBJECT = {1, 2}
"""Which of the two is first, the embedded model cannot be relied on to tell; that the third is last, it can."""


def _post(server: Server, base: str, key: str, **more: Any) -> Any:
    with openai.OpenAI(api_key=key, base_url=server.url + base) as client:
        return client.post("/reranks", body={**CALL, **more}, cast_to=object)


@pytest.mark.parametrize("base", ["/compatible-api/v1", "/v1"])
def test_openai_ranks(embedded_server: Server, base: str) -> None:
    reply = _post(embedded_server, base, embedded_server.key, top_n=2, return_documents=True)
    assert reply["object"] == "list" and reply["model"] == "qwen3-rerank"
    assert {result["index"] for result in reply["results"]} == ON_THE_SUBJECT
    assert all(result["document"]["text"] == DOCUMENTS[result["index"]] for result in reply["results"])
    assert reply["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("base", ["/compatible-api/v1", "/v1"])
def test_openai_with_a_wrong_key_raises_authentication_error(embedded_server: Server, base: str) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        _post(embedded_server, base, "wrong-key")
    error = raised.value
    assert (error.status_code, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")
    assert "Incorrect API key provided." in error.message
    assert error.request_id


def _call(server: Server, key: str, **more: Any) -> Any:
    """The classic call, which raises nothing: the outcome is in the response."""
    return dashscope.TextReRank.call(**CALL, **more, api_key=key, base_address=f"{server.url}/api/v1")


def _texts(results: Any) -> list[str | None]:
    """Read by key, as its users do: the attribute `document` is hidden by the class's own default, None."""
    return [result["document"] and result["document"]["text"] for result in results]


def test_dashscope_text_rerank_ranks(embedded_server: Server) -> None:
    response = _call(embedded_server, embedded_server.key, top_n=2, return_documents=True, instruct=SIMILARITY)
    assert (response.status_code, response.code, response.message) == (200, "", "")
    assert response.request_id
    indices = [result.index for result in response.output.results]
    assert set(indices) == ON_THE_SUBJECT
    assert _texts(response.output.results) == [DOCUMENTS[index] for index in indices]
    assert response.output.results[0].relevance_score > response.output.results[1].relevance_score
    assert response.usage.total_tokens > 0


def test_dashscope_text_rerank_returns_all_and_no_documents_by_default(embedded_server: Server) -> None:
    results = _call(embedded_server, embedded_server.key).output.results
    assert {result.index for result in results[:2]} == ON_THE_SUBJECT and results[2].index == 0
    assert _texts(results) == [None, None, None]


def test_dashscope_text_rerank_with_a_wrong_key(embedded_server: Server) -> None:
    response = _call(embedded_server, "wrong-key")
    assert (response.status_code, response.code) == (401, "InvalidApiKey")
    assert response.message == "Invalid API-key provided."
    assert response.request_id and response.output is None


def _create(server: Server, key: str, **more: Any) -> Any:
    with dashscope.Client(api_key=key, base_url=f"{server.url}/api/v1") as client:
        return client.rerank.create(**CALL, **more)


def test_dashscope_client_ranks(embedded_server: Server) -> None:
    response = _create(embedded_server, embedded_server.key, top_n=2, return_documents=True, instruct=SIMILARITY)
    assert not response.is_error and response.request_id
    assert {result.index for result in response.results} == ON_THE_SUBJECT
    assert all(result.document.text == DOCUMENTS[result.index] for result in response.results)
    assert response.usage.total_tokens > 0


def test_dashscope_client_with_a_wrong_key_raises_authentication_error(embedded_server: Server) -> None:
    with pytest.raises(DashScopeAuthenticationError) as raised:
        _create(embedded_server, "wrong-key")
    assert (raised.value.status_code, raised.value.code) == (401, "InvalidApiKey")
    assert raised.value.message == "Invalid API-key provided."
    assert raised.value.request_id
