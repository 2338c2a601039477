"""NVIDIA NIM's ranking: its paths, its limits, its errors."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from support.server import Server
from support.surfaces import DOCUMENTS, NIM, QUERY, RERANK

PATHS = (
    "/v1/ranking",
    "/nim/v1/ranking",
    "/v1/retrieval/nvidia/reranking",
    "/v1/retrieval/nvidia/llama-3_2-nv-rerankqa-1b-v2/reranking",
)
BODY = {
    "model": "qwen3-rerank",
    "query": {"text": QUERY},
    "passages": [{"text": text} for text in DOCUMENTS],
    "truncate": "END",
}


@pytest.mark.parametrize("path", PATHS)
def test_the_reply(path: str, qwen_server: Server) -> None:
    response = qwen_server.post(path, BODY)
    logits = RERANK.scores(qwen_server.post(RERANK.path, RERANK.body(use_activation=False)))
    assert set(response.json()) == {"rankings", "usage"}
    assert dict(NIM.scores(response)) == pytest.approx(dict(logits), abs=1e-5)
    tokens = qwen_server.post(RERANK.path, RERANK.body()).json()["usage"]["prompt_tokens"]
    assert response.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("path", PATHS)
def test_another_method(path: str, qwen_server: Server) -> None:
    response = httpx2.get(qwen_server.url + path)
    assert "POST" in NIM.error(response, 405) and response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"passages": []}, 400, "passages: List should have at least 1 item"),
        ({"passages": [{"text": "a"}] * 513}, 400, "513"),
        ({"passages": None}, 400, "passages"),
        ({"passages": [{"text": "a"}, {"image": "a"}]}, 400, "passages.1"),
        ({"passages": [{"text": "a"}, 5]}, 400, "passages.1"),
        ({"query": None}, 400, "query"),
        ({"query": {}}, 400, "query"),
        ({"truncate": "START"}, 400, "truncate"),
        ({"top_k": 0}, 400, "top_k"),
        ({"model": "nvidia/none"}, 404, "nvidia/none"),
        ({"truncate": None, "passages": [{"text": "word " * 20_000}]}, 400, "`truncate` to END"),
        ({"instruct": "word " * 5000}, 400, "instruct"),
    ],
)
def test_errors(change: dict[str, Any], status: int, told: str, qwen_server: Server) -> None:
    assert told in NIM.error(qwen_server.post(NIM.path, {**BODY, **change}), status)


@pytest.mark.parametrize("key", ["", "wrong"])
def test_keys(key: str, qwen_server: Server) -> None:
    assert NIM.error(qwen_server.post(NIM.path, BODY, key=key or "x"), 401)


def test_what_is_optional(qwen_server: Server) -> None:
    body = {"query": QUERY, "passages": list(DOCUMENTS), "truncate": None, "top_k": 2, "model": None}
    assert len(NIM.scores(qwen_server.post(NIM.path, body))) == 2


def test_an_end_is_cut_visibly(qwen_server: Server) -> None:
    response = qwen_server.post(NIM.path, {**BODY, "passages": [{"text": "word " * 20_000}]})
    assert "document 0 truncated" in response.headers["x-rerankd-warning"]
