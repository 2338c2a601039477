"""Requests as applications send them, and of each reply what that application reads.

The shapes come from the applications' sources. `tests/third_party_clients` runs the applications whose rerank code
is in a package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from support.server import Server, StartServer

JSON = dict[str, Any]
Scores = dict[int, float]

QUERY = "What is the capital of the United States?"
DOCUMENTS = [
    "Carson City is the capital city of the American state of Nevada.",
    "Washington, D.C. is the capital city and federal district of the United States.",
    "The Commonwealth of the Northern Mariana Islands is a group of islands in the Pacific Ocean.",
]
BEST = 1

NATIVE = "/api/v1/services/rerank/text-rerank/text-rerank"
FLAT = {"model": "qwen3-rerank", "query": QUERY, "documents": DOCUMENTS}
NESTED = {"query": QUERY, "documents": DOCUMENTS}


@dataclass(frozen=True)
class Application:
    """One kind of request. read: what the application takes from the reply; results: how many it should find."""

    name: str
    path: str
    body: JSON
    read: Callable[[Any], Scores]
    results: int = len(DOCUMENTS)
    headers: dict[str, str] = field(default_factory=dict)


def by_index(reply: JSON) -> Scores:
    return {result["index"]: result["relevance_score"] for result in reply["results"]}


def dify(reply: JSON) -> Scores:
    """The SDK's model for OpenAI-like servers: a text from the document, which may be an object or a string."""
    for result in reply["results"]:
        document = result.get("document", {})
        assert not document or document["text"] == DOCUMENTS[result["index"]]
    return by_index(reply)


def dify_before_plugins(reply: JSON) -> Scores:
    """Needs the text in each result."""
    assert [result["document"]["text"] for result in reply["results"]] == [
        DOCUMENTS[result["index"]] for result in reply["results"]
    ]
    return by_index(reply)


def dify_tongyi(reply: JSON) -> Scores:
    for result in reply["output"]["results"]:
        assert result["document"]["text"] == DOCUMENTS[result["index"]]
    return native(reply)


def open_webui(reply: JSON) -> Scores:
    """Scores alone, one for each document, in the order of `index`."""
    results = sorted(reply["results"], key=lambda result: result["index"])
    return dict(enumerate(result["relevance_score"] for result in results))


def ragflow_jina(reply: JSON) -> Scores:
    assert reply["usage"]["total_tokens"] > 0
    return by_index(reply)


def ragflow_silicon_flow(reply: JSON) -> Scores:
    tokens = reply["meta"]["tokens"]
    assert tokens["input_tokens"] + tokens["output_tokens"] > 0
    return by_index(reply)


def fastgpt(reply: JSON) -> Scores:
    """Takes the results as sorted, and bills the tokens."""
    scores = [result["relevance_score"] for result in reply["results"]]
    assert reply["id"] and scores == sorted(scores, reverse=True)
    assert reply["meta"]["tokens"]["input_tokens"] > 0
    return by_index(reply)


def native(reply: JSON) -> Scores:
    return {result["index"]: result["relevance_score"] for result in reply["output"]["results"]}


def ragflow_tongyi(reply: JSON) -> Scores:
    assert reply["usage"]["total_tokens"] > 0
    return native(reply)


def spring(reply: JSON) -> Scores:
    """Into records, in which usage must not be null."""
    assert isinstance(reply["usage"]["total_tokens"], int) and isinstance(reply["request_id"], str)
    assert {type(result.get("document", {})) for result in reply["output"]["results"]} == {dict}
    return native(reply)


def texts(reply: list[JSON]) -> Scores:
    return {result["index"]: result["score"] for result in reply}


def voyage(reply: JSON) -> Scores:
    return {result["index"]: result["relevance_score"] for result in reply["data"]}


APPLICATIONS = [
    Application(
        "Dify before plugins", "/v1/rerank", {**FLAT, "top_n": 2, "return_documents": True}, dify_before_plugins, 2
    ),
    Application("Dify SDK", "/v1/rerank", {**FLAT, "top_n": None, "return_documents": True}, dify),
    Application("Dify, OpenAI-compatible", "/v1/rerank", {**FLAT, "top_n": 3}, by_index),
    Application("Dify, OpenAI-compatible, full address", "/v1/reranks", {**FLAT, "top_n": 3}, by_index),
    Application(
        "Dify, OpenAI-compatible, multimodal",
        "/v1/rerank",
        {**FLAT, "documents": [{"content": [{"type": "text", "text": text}]} for text in DOCUMENTS], "top_n": 3},
        by_index,
    ),
    Application("Dify, Jina", "/v1/rerank", {**FLAT, "top_n": None, "return_documents": False}, by_index),
    Application(
        "Dify, Tongyi",
        NATIVE,
        {"model": "gte-rerank", "input": NESTED, "parameters": {"top_n": 2, "return_documents": True}},
        dify_tongyi,
        2,
        {"user-agent": "dashscope/1.17.0; python/3.12; platform/Linux; processor/x86_64"},
    ),
    Application(
        "Open WebUI",
        "/v1/rerank",
        {**FLAT, "top_n": 3},
        open_webui,
        headers={"X-OpenWebUI-User-Name": "A", "X-OpenWebUI-User-Role": "admin"},
    ),
    Application("RAGFlow, Jina", "/v1/rerank", {**FLAT, "top_n": 3}, ragflow_jina),
    Application("RAGFlow, OpenAI-API", "/rerank", {**FLAT, "top_n": 3}, by_index),
    Application(
        "RAGFlow, SILICONFLOW",
        "/v1/rerank",
        {**FLAT, "top_n": 3, "return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
        ragflow_silicon_flow,
    ),
    Application(
        "RAGFlow, Xinference",
        "/v1/rerank",
        {**FLAT, "return_documents": "true", "return_len": "true"},
        by_index,
    ),
    Application(
        "RAGFlow, Xinference, on its folder",
        "/xinference/v1/rerank",
        {**FLAT, "return_documents": "true", "return_len": "true"},
        ragflow_silicon_flow,
    ),
    Application(
        "RAGFlow, Tongyi",
        NATIVE,
        {"model": "qwen3-rerank", "input": NESTED, "parameters": {"top_n": 3, "extra_headers": {"a": "b"}}},
        ragflow_tongyi,
    ),
    Application(
        "RAGFlow, HuggingFace",
        "/rerank",
        {"query": QUERY, "texts": DOCUMENTS, "raw_scores": False, "truncate": True},
        texts,
    ),
    Application("FastGPT", "/v1/rerank", FLAT, fastgpt),
    Application("LightRAG, cohere", "/v2/rerank", {**FLAT, "top_n": 2}, by_index, 2),
    Application("LightRAG, cohere, on its folder", "/cohere/v2/rerank", {**FLAT, "top_n": 2}, by_index, 2),
    Application("LightRAG, jina", "/v1/rerank", {**FLAT, "top_n": 2, "return_documents": False}, by_index, 2),
    Application(
        "LightRAG, aliyun",
        NATIVE,
        {"model": "gte-rerank-v2", "input": NESTED, "parameters": {"top_n": 2, "return_documents": False}},
        native,
        2,
    ),
    Application(
        "Spring AI Alibaba",
        NATIVE,
        {"model": "gte-rerank", "input": NESTED, "parameters": {"top_n": 3, "return_documents": False}},
        spring,
        headers={"X-DashScope-OpenAPISource": "CloudSDK", "X-DashScope-WorkSpace": "w"},
    ),
    Application("Cherry Studio", "/v1/rerank", {**FLAT, "top_n": 6}, by_index),
    Application(
        "Cherry Studio, Dashscope",
        NATIVE,
        {"model": "gte-rerank-v2", "input": NESTED, "parameters": {"return_documents": True, "top_n": 5}},
        dify_tongyi,
    ),
    Application("Cherry Studio, Voyage", "/v1/rerank", {**FLAT, "top_k": 2}, voyage, 2),
    Application("Cherry Studio, TEI", "/v1/rerank", {"query": QUERY, "texts": DOCUMENTS, "return_text": True}, texts),
]


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name)
def test_it_reads_what_it_needs(application: Application, embedded_server: Server) -> None:
    response = embedded_server.post(application.path, application.body, headers=application.headers)
    assert response.status_code == 200, response.text
    scores = application.read(response.json())
    assert len(scores) == application.results
    assert max(scores, key=scores.__getitem__) == BEST


@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda application: application.name)
def test_it_finds_no_results_in_a_refusal(application: Application, embedded_server: Server) -> None:
    """Some look at the status, some for their results; both tell."""
    response = embedded_server.post(application.path, application.body, key="wrong-key")
    assert response.status_code == 401
    assert not {"results", "output", "data"} & set(response.json())
    if application.path == NATIVE:
        assert (response.json()["code"], response.json()["message"]) == ("InvalidApiKey", "Invalid API-key provided.")


@pytest.fixture(scope="module")
def open_server(start_server: StartServer) -> Server:
    """One that asks for no key."""
    return start_server("--model", "embedded")


@pytest.mark.parametrize("authorization", [None, "", "Bearer None"])
def test_dify_without_a_key(authorization: str | None, open_server: Server) -> None:
    """It sends what it has, and a server without keys takes it."""
    headers = {} if authorization is None else {"authorization": authorization}
    response = httpx2.post(f"{open_server.url}/v1/rerank", json={**FLAT, "top_n": 3}, headers=headers, timeout=60)
    assert response.status_code == 200
    assert by_index(response.json()).keys() == {0, 1, 2}
