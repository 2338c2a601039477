"""What clients of several APIs expect on the shared address: keys, models, fields, replies that can be written."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from starlette.responses import JSONResponse

from rerankd.server.json_text import WrittenJSON, pieces
from support.server import Server, StartServer
from support.surfaces import ALL, COHERE_V1, COHERE_V2, JINA, MIXEDBREAD, RERANK, TEI, VOYAGE, XINFERENCE, Surface

ECHOED = (RERANK, COHERE_V1, COHERE_V2, JINA, XINFERENCE, MIXEDBREAD)
STATUS_PAGES = ("/metrics", "/tei/metrics", "/load", "/v1/rates", "/openapi.json", "/docs", "/docs/")


@pytest.mark.parametrize("header", ["x-api-key", "api-key", "X-Api-Key"])
@pytest.mark.parametrize("surface", ALL, ids=str)
def test_a_key_in_another_header(surface: Surface, header: str, qwen_server: Server) -> None:
    url = qwen_server.url + surface.path
    assert httpx2.post(url, json=surface.body(), headers={header: qwen_server.key}).status_code == 200
    assert httpx2.post(url, json=surface.body(), headers={header: "wrong"}).status_code == 401
    both = {header: "wrong", "authorization": f"Bearer {qwen_server.key}"}
    assert httpx2.post(url, json=surface.body(), headers=both).status_code == 200
    empty = {header: qwen_server.key, "authorization": "Bearer"}
    assert httpx2.post(url, json=surface.body(), headers=empty).status_code == 200


def get(server: Server, path: str, key: str | None = None) -> httpx2.Response:
    return httpx2.get(server.url + path, headers={"authorization": f"Bearer {key or server.key}"}, timeout=60)


@pytest.mark.parametrize("name", ["qwen3-rerank", "Qwen/Qwen3-Reranker-4B"])
def test_a_model_of_openai_and_of_xinference(name: str, embedded_server: Server) -> None:
    card = get(embedded_server, f"/v1/models/{name}").json()
    assert (card["id"], card["object"], card["owned_by"]) == (name, "model", "rerankd")
    assert (card["model_type"], card["model_uid"], card["model_name"]) == ("rerank", name, card["root"])
    assert card in get(embedded_server, "/v1/models").json()["data"]


def test_a_model_that_is_not_served(embedded_server: Server) -> None:
    response = get(embedded_server, "/v1/models/a/b/c")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found" and "a/b/c" in response.json()["detail"]
    assert get(embedded_server, "/v1/models/qwen3-rerank", "wrong").status_code == 401


def test_xinferences_first_question(embedded_server: Server) -> None:
    assert httpx2.get(embedded_server.url + "/v1/cluster/auth").json() == {"auth": True}


@pytest.mark.parametrize("surface", ECHOED, ids=str)
@pytest.mark.parametrize("value", ["1e999", "-1e999", "[1e999]", "[" * 900 + "]" * 900, '"\\ud800"', "9" * 4000])
def test_what_cannot_be_written_fails_no_reply(surface: Surface, value: str, qwen_server: Server) -> None:
    body = json.dumps(surface.body(documents=[{"text": "b", "x": 0.5}], return_documents=True))
    headers = {"authorization": f"Bearer {qwen_server.key}", "content-type": "application/json"}
    body = body.replace("0.5", value)
    response = httpx2.post(qwen_server.url + surface.path, content=body, headers=headers, timeout=60)
    assert response.status_code in (200, 400, 422), response.text[:300]


def test_a_reply_is_written_whatever_is_in_it() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": [deep]}
    content = {"a": float("inf"), "b": [float("nan"), 1, None, True], "\ud800": "c\udfff", "deep": deep}
    reply = json.loads(bytes(WrittenJSON(content).body))
    assert (reply["a"], reply["b"]) == (None, [None, 1, None, True])
    assert reply["\ufffd"] == "c\ufffd" and json.dumps(reply["deep"]).count("a") == 50


def test_a_large_reply_is_written_in_pieces() -> None:
    """Between two pieces other threads run; the bytes are those of one piece."""
    results = [{"index": n, "document": {"text": "é" * 10, "n": [n] * 3}} for n in range(10_000)]
    for content in (results, {"output": {"results": results, "none": [], "deep": {"ü": 1.5}}, "tokens": [1] * 10_000}):
        written = list(pieces(content))
        assert b"".join(written) == JSONResponse(content).body
        assert max(map(len, written)) < 20_000 < len(b"".join(written)) // 10


def test_the_shared_path_takes_its_clients_fields(start_server: StartServer) -> None:
    strict = start_server("--model", "embedded", "--strict", key="test-key")
    fields = {"max_chunks_per_doc": 10, "overlap_tokens": 80, "return_len": True, "max_doc_length": 3}
    response = strict.post(RERANK.path, RERANK.body(documents=["one two three four five"], **fields))
    assert RERANK.scores(response)
    told = response.json()["meta"]["warnings"]
    assert "document 0 truncated from 5 to 3 tokens" in told
    assert strict.post(COHERE_V2.path, COHERE_V2.body(return_documents=True)).status_code == 200
    assert strict.post(RERANK.path, RERANK.body(max_chunk_per_doc=1)).status_code == 400


def test_an_empty_text_beside_top_k(qwen_server: Server) -> None:
    documents = ["", "Bread is baked."]
    by_top_n = qwen_server.post(RERANK.path, RERANK.body(documents=documents, top_n=2))
    by_top_k = qwen_server.post(RERANK.path, RERANK.body(documents=documents, top_k=2))
    scores = [(row["index"], row["relevance_score"]) for row in by_top_k.json()["data"]]
    assert scores == RERANK.scores(by_top_n)


@pytest.mark.parametrize("change", [{"documents": ["a", ""]}, {"query": ""}])
def test_voyage_refuses_empty_texts_in_its_words(change: dict[str, Any], qwen_server: Server) -> None:
    response = qwen_server.post(VOYAGE.path, VOYAGE.body(**change))
    assert "Input cannot contain empty strings" in VOYAGE.error(response, 400)


def test_voyage_knows_no_top_n(qwen_server: Server) -> None:
    assert "top_k" in VOYAGE.error(qwen_server.post(VOYAGE.path, {**VOYAGE.body(), "top_n": 1}), 400)


def test_tei_tells_its_times(qwen_server: Server) -> None:
    headers = qwen_server.post(TEI.path, TEI.body()).headers
    parts = [int(headers[f"x-{part}-time"]) for part in ("tokenization", "queue", "inference")]
    assert all(part >= 0 for part in parts) and sum(parts) <= int(headers["x-total-time"]) + 2
    assert get(qwen_server, "/tei/ping").status_code == 200
    assert "rerankd_requests_total" in get(qwen_server, "/tei/metrics").text


def test_health_has_infinitys_time(qwen_server: Server) -> None:
    assert get(qwen_server, "/health").json()["unix"] > 1e9


def test_togethers_client_reads_completion_tokens(qwen_server: Server) -> None:
    assert qwen_server.post(RERANK.path, RERANK.body()).json()["usage"]["completion_tokens"] == 0


def test_status_pages_for_those_who_have_a_key(start_server: StartServer, embedded_server: Server) -> None:
    server = start_server("--model", "embedded", "--keyed-status", key="test-key")
    for path in STATUS_PAGES:
        assert httpx2.get(server.url + path).status_code == 401, path
        assert get(server, path).status_code != 401
        assert httpx2.get(embedded_server.url + path).status_code != 401
    assert httpx2.get(server.url + "/health").status_code == 200


def test_the_description_begins_with_the_readmes_body(embedded_server: Server) -> None:
    paths = get(embedded_server, "/openapi.json").json()["paths"]
    assert next(iter(paths)) == "/v1/rerank"
    content = paths["/v1/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert set(content["example"]) == {"model", "query", "documents"}
    assert "documents" in content["schema"]["anyOf"][0]["properties"]
    for path, operations in paths.items():
        body = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "rerank" in operations.get("post", {}).get("tags", []):
            assert embedded_server.post(path, body["example"]).status_code == 200, path


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_an_instruct_has_a_limit_everywhere(surface: Surface, qwen_server: Server) -> None:
    response = qwen_server.post(surface.path, surface.body(instruct="word " * 2000))
    told = surface.error(response, 400 if surface is JINA else surface.wrong)
    assert "The instruct has 200" in told and "at most 1024 are allowed" in told and "Shorten the instruct" in told


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_a_base_address_with_a_slash_at_its_end(surface: Surface, qwen_server: Server) -> None:
    key = {"authorization": f"Bearer {qwen_server.key}"}
    doubled = f"{qwen_server.url}/{surface.path}"
    assert httpx2.post(doubled, json=surface.body(), headers=key).status_code == 200
    assert httpx2.post(doubled, json=surface.body(), headers={"authorization": "Bearer wrong"}).status_code == 401


def test_a_status_page_has_one_path(embedded_server: Server) -> None:
    """Proxies restrict these pages by their path."""
    for path in STATUS_PAGES:
        assert get(embedded_server, f"/{path}").status_code == 404


def test_search_without_an_index_says_so(embedded_server: Server) -> None:
    response = embedded_server.post("/v1/search", {"query": "a"})
    assert response.status_code == 404 and "start it with --index" in response.json()["detail"]


def test_an_empty_body_is_called_empty(embedded_server: Server) -> None:
    for surface in ALL:
        headers = {"authorization": f"Bearer {embedded_server.key}", "content-type": "application/json"}
        response = httpx2.post(embedded_server.url + surface.path, content=b"", headers=headers)
        assert response.status_code in (400, 422) and "the body is empty" in response.text, surface
        assert "body.'" not in response.text, surface


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ({"min_score": "high"}, "unable to parse string as a number or 'keep' or 'relevant'"),
        ({"cascade": -1}, "unable to interpret input or greater than or equal to 0"),
        ({"explain": 3}, "Input should be a valid dictionary or a valid boolean, unable to interpret input"),
        ({"passages": {"tokens": 3}}, "Unknown field"),
    ],
    ids=["min_score", "cascade", "explain", "passages"],
)
def test_a_mistake_in_our_own_field(field: dict[str, Any], sentence: str, embedded_server: Server) -> None:
    response = embedded_server.post(RERANK.path, {**RERANK.body(), **field})
    [name] = field
    message = response.json()["error"]["message"]
    assert message.startswith("1 validation error:") and sentence in message
    assert f"'loc': 'body.{name}" in message and "float" not in message and "Explain" not in message
