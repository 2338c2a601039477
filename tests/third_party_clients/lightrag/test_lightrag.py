"""LightRAG: its own rerank bindings, as RERANK_BINDING and RERANK_BINDING_HOST choose them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from tenacity import RetryError

from contract import ClientContract, Ranked, Refusal, Refusals, Request, Server
from lightrag import rerank


class TestJinaBinding(ClientContract):
    distribution = "lightrag-hku"
    call = "jina_rerank"
    reached = 'base_url="URL/v1/rerank"'
    base = "/v1/rerank"
    binding: ClassVar[Callable[..., Coroutine[Any, Any, list[dict[str, Any]]]]] = staticmethod(rerank.jina_rerank)
    refusals = Refusals.all(Refusal(RetryError, "ClientResponseError"))._replace(too_many=None)  # it tries three times

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        results = asyncio.run(
            self.binding(
                request.query,
                request.documents,
                top_n=request.top_n,
                api_key=server.key,
                model=request.model,
                base_url=self.at(server),
            )
        )
        return [Ranked(result["index"], result["relevance_score"]) for result in results]


class TestCohereBinding(TestJinaBinding):
    call = "cohere_rerank"
    reached = 'base_url="URL/v2/rerank"'
    base = "/v2/rerank"
    binding = staticmethod(rerank.cohere_rerank)


class TestAliBinding(TestJinaBinding):
    call = "ali_rerank"
    reached = 'base_url="URL/api/v1/services/rerank/text-rerank/text-rerank"'
    base = "/api/v1/services/rerank/text-rerank/text-rerank"
    binding = staticmethod(rerank.ali_rerank)
    refusals = Refusals.all(Refusal(RetryError, "ClientResponseError"))
