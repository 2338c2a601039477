"""voyageai: it shows the caller's own documents."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import voyageai
from voyageai import error

from contract import RATE_LIMIT, UNKNOWN_MODEL, WRONG_KEY, ClientContract, Ranked, Refusal, Refusals, Request, Server


def options(request: Request) -> dict[str, Any]:
    return {
        "model": request.model,
        "query": request.query,
        "documents": request.documents,
        "top_k": request.top_n,  # null is sent
    }


def results_of(response: Any) -> list[Ranked]:
    assert response.total_tokens > 0
    return [Ranked(result.index, result.relevance_score, result.document) for result in response.results]


class TestClient(ClientContract):
    distribution = "voyageai"
    call = "Client().rerank"
    reached = 'base_url="URL/voyage/v1"'
    base = "/voyage/v1"
    too_many = 1001
    refusals = Refusals(
        wrong_key=Refusal(error.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(error.InvalidRequestError, UNKNOWN_MODEL),
        too_many=Refusal(error.InvalidRequestError, "from 1 to 1000 are allowed"),
        rate_limit=Refusal(error.RateLimitError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        return results_of(voyageai.Client(server.key, base_url=self.at(server)).rerank(**options(request)))

    def test_truncation(self, server: Server) -> None:
        client = voyageai.Client(server.key, base_url=self.at(server))
        long = ["China " * 20_000]
        assert client.rerank("capital", long, "qwen3-rerank").results[0].index == 0
        with pytest.raises(error.InvalidRequestError, match="too many tokens"):
            client.rerank("capital", long, "qwen3-rerank", truncation=False)


class TestAsyncClient(TestClient):
    call = "AsyncClient().rerank"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        client = voyageai.AsyncClient(server.key, base_url=self.at(server))
        return results_of(asyncio.run(client.rerank(**options(request))))


class TestSharedPath(TestClient):
    """The body is told from others on this path by `top_k` or `truncation`."""

    reached = 'base_url="URL/v1"'
    base = "/v1"
