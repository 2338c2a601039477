"""mixedbread: it always adds /v1/reranking to its address."""

from __future__ import annotations

import asyncio
from typing import Any

import mixedbread
from mixedbread import AsyncMixedbread, Mixedbread

from contract import (
    DOCUMENTS,
    RATE_LIMIT,
    UNKNOWN_MODEL,
    WRONG_KEY,
    ClientContract,
    Ranked,
    Refusal,
    Refusals,
    Request,
    Server,
)


def options(request: Request) -> dict[str, Any]:
    named = {"top_k": request.top_n, "return_input": request.return_documents}
    chosen = {name: value for name, value in named.items() if value is not None}
    return {"model": request.model, "query": request.query, "input": request.documents, **chosen}


def results_of(response: Any) -> list[Ranked]:
    assert response.object == "list" and response.usage.total_tokens > 0 and response.top_k == len(response.data)
    assert {result.object for result in response.data} == {"rank_result"}
    return [Ranked(result.index, result.score, result.input) for result in response.data]


class TestMixedbread(ClientContract):
    distribution = "mixedbread"
    call = "Mixedbread().rerank"
    reached = 'base_url="URL/mixedbread"'
    base = "/mixedbread"
    refusals = Refusals(
        wrong_key=Refusal(mixedbread.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(mixedbread.NotFoundError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(mixedbread.RateLimitError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with Mixedbread(api_key=server.key, base_url=self.at(server), max_retries=0) as client:
            return results_of(client.rerank(**options(request)))

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [DOCUMENTS[result.index] for result in results]

    def test_rank_fields(self, server: Server) -> None:
        documents = [{"title": "A", "body": DOCUMENTS[0]}, {"title": "B", "body": DOCUMENTS[1]}]
        with Mixedbread(api_key=server.key, base_url=self.at(server)) as client:
            response = client.rerank(query=Request().query, input=documents, rank_fields=["body"], return_input=True)
        assert [result.input for result in response.data] == documents[::-1]


class TestAsyncMixedbread(TestMixedbread):
    call = "AsyncMixedbread().rerank"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            async with AsyncMixedbread(api_key=server.key, base_url=self.at(server), max_retries=0) as client:
                return results_of(await client.rerank(**options(request)))

        return asyncio.run(ask())


class TestSharedPath(TestMixedbread):
    """The body is told from llama.cpp's by `input`."""

    reached = 'base_url="URL"'
    base = ""
    refusals = TestMixedbread.refusals._replace(wrong_key=Refusal(mixedbread.AuthenticationError, "Invalid API Key"))
