"""openai: it has no rerank call of its own; Qwen Cloud's guide sends one with `client.post`."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from contract import RATE_LIMIT, UNKNOWN_MODEL, WRONG_KEY, ClientContract, Ranked, Refusal, Refusals, Request, Server


def body(request: Request) -> dict[str, Any]:
    named = {"top_n": request.top_n, "return_documents": request.return_documents}
    chosen = {name: value for name, value in named.items() if value is not None}
    return {"model": request.model, "query": request.query, "documents": request.documents, **chosen}


def results_of(reply: Any) -> list[Ranked]:
    assert reply["object"] == "list" and reply["model"] == "qwen3-rerank" and reply["usage"]["total_tokens"] > 0
    return [Ranked(r["index"], r["relevance_score"], r.get("document", {}).get("text")) for r in reply["results"]]


class TestReranks(ClientContract):
    distribution = "openai"
    call = 'OpenAI().post("/reranks")'
    reached = 'base_url="URL/compatible-api/v1"'
    base = "/compatible-api/v1"
    refusals = Refusals(
        wrong_key=Refusal(openai.AuthenticationError, "Incorrect API key provided."),
        unknown_model=Refusal(openai.NotFoundError, UNKNOWN_MODEL),
        too_many=Refusal(openai.BadRequestError, "larger than 500"),
        rate_limit=Refusal(openai.RateLimitError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with openai.OpenAI(api_key=server.key, base_url=self.at(server), max_retries=0) as client:
            return results_of(client.post("/reranks", body=body(request), cast_to=object))

    def test_the_error_has_code_and_request_id(self, server: Server) -> None:
        with pytest.raises(openai.AuthenticationError) as raised:
            self.rank(Server(server.url, "wrong-key"), Request())
        error = raised.value
        assert (error.status_code, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")
        assert error.request_id

    def test_a_model_can_be_retrieved(self, server: Server) -> None:
        with openai.OpenAI(api_key=server.key, base_url=f"{server.url}/v1", max_retries=0) as client:
            for listed in client.models.list():
                assert client.models.retrieve(listed.id) == listed
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("nobody/nothing")


class TestAsyncReranks(TestReranks):
    call = 'AsyncOpenAI().post("/reranks")'
    reached = 'base_url="URL/v1"'
    base = "/v1"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        async def ask() -> list[Ranked]:
            client = openai.AsyncOpenAI(api_key=server.key, base_url=self.at(server), max_retries=0)
            async with client:
                return results_of(await client.post("/reranks", body=body(request), cast_to=object))

        return asyncio.run(ask())


class TestRerank(TestReranks):
    """vLLM's path and error object."""

    call = 'OpenAI().post("/rerank")'
    reached = 'base_url="URL/v1"'
    base = "/v1"
    refusals = TestReranks.refusals._replace(wrong_key=Refusal(openai.AuthenticationError, WRONG_KEY), too_many=None)

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        with openai.OpenAI(api_key=server.key, base_url=self.at(server), max_retries=0) as client:
            return results_of(client.post("/rerank", body=body(request), cast_to=object))

    def test_the_error_has_code_and_request_id(self, server: Server) -> None:
        with pytest.raises(openai.NotFoundError) as raised:
            self.rank(server, Request(model="nobody/nothing"))
        error = raised.value
        assert (error.status_code, error.code, error.type) == (404, "404", "NotFoundError")
        assert error.request_id
