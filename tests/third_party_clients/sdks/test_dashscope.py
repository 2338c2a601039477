"""dashscope: the classic calls, which raise nothing, and the clients of version 2, which do."""

from __future__ import annotations

import asyncio
from typing import Any

import dashscope
import pytest
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.v2 import errors

from contract import RATE_LIMIT, UNKNOWN_MODEL, ClientContract, NotRaised, Ranked, Refusal, Refusals, Request, Server

API = "/api/v1"
TOO_MANY = "batch size of documents is invalid, it should not be empty or larger than 500"


def options(request: Request) -> dict[str, Any]:
    named = {"top_n": request.top_n, "return_documents": request.return_documents}
    return {
        "model": request.model,
        "query": request.query,
        "documents": request.documents,
        **{name: value for name, value in named.items() if value is not None},
    }


def results_of(response: Any) -> list[Ranked]:
    """Of a classic response, which tells a refusal in its status, code and message."""
    if response.status_code != 200:
        assert response.output is None and response.request_id
        raise NotRaised(f"code {response.code}", response.message)
    assert (response.code, response.message) == ("", "")
    assert response.usage.total_tokens == response.usage.prompt_tokens > 0
    # By key: the attribute `document` is hidden by the class's own default, None.
    return [Ranked(r.index, r.relevance_score, (r["document"] or {}).get("text")) for r in response.output.results]


class TestTextReRank(ClientContract):
    distribution = "dashscope"
    call = "TextReRank.call"
    reached = 'base_address="URL/api/v1"'
    base = API
    refusals = Refusals(
        wrong_key=Refusal(NotRaised, "InvalidApiKey: Invalid API-key provided."),
        unknown_model=Refusal(NotRaised, f"ModelNotFound: {UNKNOWN_MODEL}"),
        too_many=Refusal(NotRaised, f"InvalidParameter: Value error, {TOO_MANY}"),
        rate_limit=Refusal(NotRaised, f"Throttling.RateQuota: {RATE_LIMIT}"),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        call = dashscope.TextReRank.call(**options(request), api_key=server.key, base_address=self.at(server))
        return results_of(call)

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [Request().documents[result.index] for result in results]
        assert {result.document for result in self.rank(server, Request())} == {None}


class TestAioTextReRank(TestTextReRank):
    call = "AioTextReRank.call"
    reached = 'dashscope.base_http_api_url = "URL/api/v1"'

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            try:
                return results_of(await dashscope.AioTextReRank.call(**options(request), api_key=server.key))
            finally:
                await close_shared_aio_session()  # it is of this event loop

        dashscope.base_http_api_url = self.at(server)
        return asyncio.run(ask())


class TestClient(ClientContract):
    distribution = "dashscope"
    call = "Client().rerank.create"
    reached = 'base_url="URL/api/v1"'
    base = API
    refusals = Refusals(
        wrong_key=Refusal(errors.AuthenticationError, "Invalid API-key provided."),
        unknown_model=Refusal(errors.NotFoundError, UNKNOWN_MODEL),
        too_many=Refusal(errors.BadRequestError, TOO_MANY),
        rate_limit=Refusal(errors.RateLimitError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with dashscope.Client(api_key=server.key, base_url=self.at(server)) as client:
            return self.results_of(client.rerank.create(**options(request)))

    def results_of(self, response: Any) -> list[Ranked]:
        assert not response.is_error and response.request_id and response.usage.total_tokens > 0
        return [Ranked(r.index, r.relevance_score, r.document and r.document.text) for r in response.results]

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [Request().documents[result.index] for result in results]

    def test_the_error_has_status_code_and_request_id(self, server: Server) -> None:
        with pytest.raises(errors.AuthenticationError) as raised:
            self.rank(Server(server.url, "wrong-key"), Request())
        assert (raised.value.status_code, raised.value.code) == (401, "InvalidApiKey")
        assert raised.value.request_id


class TestAsyncClient(TestClient):
    call = "AsyncClient().rerank.create"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            async with dashscope.AsyncClient(api_key=server.key, base_url=self.at(server)) as client:
                return self.results_of(await client.rerank.create(**options(request)))

        return asyncio.run(ask())
