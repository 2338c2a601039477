"""cohere: both versions of its API, each on its own folder of paths and on the shared ones."""

from __future__ import annotations

import asyncio
from typing import Any

import cohere
import pytest
from cohere import RerankResponse, RerankResponseResultsItem, errors

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
    named = {"top_n": request.top_n, "return_documents": request.return_documents}
    chosen = {name: value for name, value in named.items() if value is not None}
    return {"model": request.model, "query": request.query, "documents": request.documents, **chosen}


def results_of(response: Any) -> list[Ranked]:
    """Only version 1 has documents."""
    assert response.id and response.meta.billed_units.search_units >= 1 and response.meta.tokens.input_tokens > 0
    return [
        Ranked(result.index, result.relevance_score, text_of(result) if isinstance(response, RerankResponse) else None)
        for result in response.results
    ]


def text_of(result: RerankResponseResultsItem) -> str | None:
    return result.document.text if result.document else None


class TestClient(ClientContract):
    distribution = "cohere"
    call = "Client().rerank"
    reached = 'base_url="URL/cohere"'
    base = "/cohere"
    too_many = 1000  # of ten chunks each
    refusals = Refusals(
        wrong_key=Refusal(errors.UnauthorizedError, "status_code: 401"),
        unknown_model=Refusal(errors.NotFoundError, "model 'nobody/nothing' not found"),
        too_many=Refusal(errors.BadRequestError, "number of total max chunks"),
        rate_limit=Refusal(errors.TooManyRequestsError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with cohere.Client(server.key, base_url=self.at(server)) as client:
            return results_of(client.rerank(**options(request)))

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [DOCUMENTS[result.index] for result in results]

    def test_rank_fields(self, server: Server) -> None:
        documents = [{"title": "A", "body": DOCUMENTS[0]}, {"title": "B", "body": DOCUMENTS[1]}]
        with cohere.Client(server.key, base_url=self.at(server)) as client:
            response = client.rerank(query=Request().query, documents=documents, rank_fields=["body"])
        assert [result.index for result in response.results] == [1, 0]

    def test_null_options(self, server: Server) -> None:
        with cohere.Client(server.key, base_url=self.at(server)) as client:
            response = client.rerank(
                query=Request().query, documents=Request().documents, model="qwen3-rerank", top_n=None
            )
        assert len(response.results) == len(DOCUMENTS)

    def test_the_error_has_the_message(self, server: Server) -> None:
        with pytest.raises(errors.UnauthorizedError) as raised:
            self.rank(Server(server.url, "wrong-key"), Request())
        assert raised.value.status_code == 401 and raised.value.body["message"] == "invalid api token"


class TestAsyncClient(TestClient):
    call = "AsyncClient().rerank"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            async with cohere.AsyncClient(server.key, base_url=self.at(server)) as client:
                return results_of(await client.rerank(**options(request)))

        return asyncio.run(ask())


class TestClientV2(ClientContract):
    distribution = "cohere"
    call = "ClientV2().rerank"
    reached = 'base_url="URL/cohere"'
    base = "/cohere"
    too_many = 10_001
    refusals = TestClient.refusals._replace(too_many=Refusal(errors.BadRequestError, "10000"))

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with cohere.ClientV2(server.key, base_url=self.at(server)) as client:
            return results_of(client.rerank(**options(request)))

    def test_null_options(self, server: Server) -> None:
        with cohere.ClientV2(server.key, base_url=self.at(server)) as client:
            response = client.rerank(**options(Request()), top_n=None, max_tokens_per_doc=None, priority=None)
        assert len(response.results) == len(DOCUMENTS)


class TestAsyncClientV2(TestClientV2):
    call = "AsyncClientV2().rerank"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            async with cohere.AsyncClientV2(server.key, base_url=self.at(server)) as client:
                return results_of(await client.rerank(**options(request)))

        return asyncio.run(ask())


SHARED = TestClient.refusals._replace(
    wrong_key=Refusal(errors.UnauthorizedError, WRONG_KEY),
    unknown_model=Refusal(errors.NotFoundError, UNKNOWN_MODEL),
    too_many=None,
)


class TestSharedPath(TestClient):
    reached = 'base_url="URL"'
    base = ""
    too_many = 501
    refusals = SHARED

    def test_the_error_has_the_message(self, server: Server) -> None:
        with pytest.raises(errors.UnauthorizedError) as raised:
            self.rank(Server(server.url, "wrong-key"), Request())
        assert raised.value.status_code == 401 and raised.value.body["message"] == "The API key is not valid."


class TestSharedPathV2(TestClientV2):
    reached = 'base_url="URL"'
    base = ""
    too_many = 501
    refusals = SHARED
