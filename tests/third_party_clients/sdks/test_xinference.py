"""xinference-client: it asks whether to send its key, and what the model is, before it ranks."""

from __future__ import annotations

import asyncio
from typing import Any

from xinference_client import AsyncRESTfulClient, RESTfulClient

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
    return {
        "query": request.query,
        "documents": request.documents,
        "top_n": request.top_n,
        "return_documents": request.return_documents,
    }


def results_of(response: Any) -> list[Ranked]:
    assert response["id"] and "meta" in response
    documents = [result["document"] for result in response["results"]]
    return [
        Ranked(result["index"], result["relevance_score"], document and document["text"])
        for result, document in zip(response["results"], documents, strict=True)
    ]


class TestRerank(ClientContract):
    distribution = "xinference-client"
    call = "RESTfulClient().get_model().rerank"
    reached = 'base_url="URL/xinference"'
    base = "/xinference"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, WRONG_KEY),
        unknown_model=Refusal(RuntimeError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(RuntimeError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        model = RESTfulClient(self.at(server), api_key=server.key).get_model(request.model)
        return results_of(model.rerank(**options(request)))

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [DOCUMENTS[result.index] for result in results]

    def test_list_models(self, server: Server) -> None:
        models = RESTfulClient(self.at(server), api_key=server.key).list_models()
        assert models["qwen3-rerank"]["model_type"] == "rerank"

    def test_describe_model(self, server: Server) -> None:
        client = RESTfulClient(self.at(server), api_key=server.key)
        assert client.describe_model("qwen3-rerank")["model_type"] == "rerank"


class TestAsyncRerank(TestRerank):
    call = "AsyncRESTfulClient().get_model().rerank"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            client = AsyncRESTfulClient(self.at(server), api_key=server.key)
            try:
                model = await client.get_model(request.model)
                try:
                    return results_of(await model.rerank(**options(request)))
                finally:
                    await model.close()
            finally:
                await client.close()

        return asyncio.run(ask())
