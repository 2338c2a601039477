"""Haystack's rankers: what they give back are the documents, with the score."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import cohere
import voyageai
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker, TruncationDirection
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.vllm import VLLMRanker
from haystack_integrations.components.rankers.voyage import VoyageRanker
from voyageai import error

from contract import (
    ORDER,
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
from haystack import Document


class RankerContract(ClientContract):
    """A ranker, by the same call for all."""

    ranker: ClassVar[type]

    def __init_subclass__(cls) -> None:
        cls.call = f"{cls.ranker.__name__}().run"

    def make(self, server: Server, request: Request) -> Any:
        raise NotImplementedError

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        documents = documents_of(request)
        return results_of(self.make(server, request).run(query=request.query, documents=documents))


def documents_of(request: Request) -> list[Document]:
    return [Document(id=str(index), content=text) for index, text in enumerate(request.documents)]


def results_of(reply: dict[str, Any]) -> list[Ranked]:
    return [Ranked(int(document.id), document.score, document.content) for document in reply["documents"]]


class TestCohereRanker(RankerContract):
    """It cuts a longer list to 1,000 documents itself."""

    ranker = CohereRanker
    distribution = "cohere-haystack"
    reached = 'api_base_url="URL/cohere"'
    base = "/cohere"
    too_many = 10_001
    refusals = Refusals(
        wrong_key=Refusal(cohere.UnauthorizedError, "invalid api token"),
        unknown_model=Refusal(cohere.NotFoundError, "model 'nobody/nothing' not found"),
        too_many=None,
        rate_limit=Refusal(cohere.TooManyRequestsError, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> CohereRanker:
        options = {} if request.top_n is None else {"top_k": request.top_n}
        key = Secret.from_token(server.key)
        return CohereRanker(model=request.model, api_key=key, api_base_url=self.at(server), **options)

    def test_run_async(self, server: Server) -> None:
        ranker = self.make(server, Request(top_n=1))
        reply = asyncio.run(ranker.run_async(query=Request().query, documents=documents_of(Request())))
        assert [result.index for result in results_of(reply)] == [1]


class TestCohereRankerShared(TestCohereRanker):
    reached = 'api_base_url="URL"'
    base = ""
    too_many = 501
    refusals = TestCohereRanker.refusals._replace(
        wrong_key=Refusal(cohere.UnauthorizedError, WRONG_KEY),
        unknown_model=Refusal(cohere.NotFoundError, UNKNOWN_MODEL),
    )


class TestJinaRanker(RankerContract):
    """It sends `top_n: null`."""

    ranker = JinaRanker
    distribution = "jina-haystack"
    reached = 'base_url="URL/jina/v1/rerank"'
    base = "/jina/v1/rerank"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, "Invalid API key"),
        unknown_model=Refusal(RuntimeError, "INPUT_MODEL_NOT_FOUND"),
        too_many=None,
        rate_limit=Refusal(RuntimeError, "RATE_REQUEST_LIMIT_EXCEEDED"),
    )

    def make(self, server: Server, request: Request) -> JinaRanker:
        key = Secret.from_token(server.key)
        return JinaRanker(model=request.model, api_key=key, top_k=request.top_n, base_url=self.at(server))

    def test_run_async(self, server: Server) -> None:
        ranker = self.make(server, Request())
        reply = asyncio.run(ranker.run_async(query=Request().query, documents=documents_of(Request())))
        assert [result.index for result in results_of(reply)] == ORDER
        assert reply["meta"]["model"] == "qwen3-rerank" and reply["meta"]["usage"]["total_tokens"] > 0


class TestJinaRankerShared(TestJinaRanker):
    reached = 'base_url="URL/v1/rerank"'
    base = "/v1/rerank"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, WRONG_KEY),
        unknown_model=Refusal(RuntimeError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(RuntimeError, RATE_LIMIT),
    )


class TestVLLMRanker(RankerContract):
    ranker = VLLMRanker
    distribution = "vllm-haystack"
    reached = 'api_base_url="URL/v1"'
    base = "/v1"
    refusals = TestJinaRankerShared.refusals

    def make(self, server: Server, request: Request) -> VLLMRanker:
        key = Secret.from_token(server.key)
        return VLLMRanker(model=request.model, api_key=key, api_base_url=self.at(server), top_k=request.top_n)

    def test_run_async(self, server: Server) -> None:
        ranker = self.make(server, Request())
        ranker.extra_parameters = {"truncate_prompt_tokens": 256, "instruction": "Find the capital."}
        reply = asyncio.run(ranker.run_async(query=Request().query, documents=documents_of(Request())))
        assert [result.index for result in results_of(reply)] == ORDER
        assert reply["meta"]["model"] == "qwen3-rerank" and reply["meta"]["usage"]["total_tokens"] > 0


class TestHuggingFaceTEIRanker(RankerContract):
    """Whatever the address, it goes to /rerank of that host. It sends no model, and cuts the list itself."""

    ranker = HuggingFaceTEIRanker
    distribution = "huggingface-api-haystack"
    reached = 'url="URL"'
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, "401 Unauthorized"),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(RuntimeError, "429 Too Many Requests"),
    )

    def make(self, server: Server, request: Request) -> HuggingFaceTEIRanker:
        options = {} if request.top_n is None else {"top_k": request.top_n}
        return HuggingFaceTEIRanker(url=self.at(server), token=Secret.from_token(server.key), **options)

    def test_run_async(self, server: Server) -> None:
        ranker = self.make(server, Request())
        call = ranker.run_async(
            query=Request().query,
            documents=documents_of(Request()),
            truncation_direction=TruncationDirection.LEFT,
        )
        assert [result.index for result in results_of(asyncio.run(call))] == ORDER

    def test_raw_scores(self, server: Server) -> None:
        ranker = self.make(server, Request())
        ranker.raw_scores = True
        results = results_of(ranker.run(query=Request().query, documents=documents_of(Request())))
        assert results[0].score > 1 and results[-1].score < 0


class TestVoyageRanker(RankerContract):
    """It has no option for the address: its client is given another one."""

    ranker = VoyageRanker
    distribution = "voyage-embedders-haystack"
    reached = '_client = voyageai.Client(base_url="URL/voyage/v1")'
    base = "/voyage/v1"
    too_many = 1001
    refusals = Refusals(
        wrong_key=Refusal(error.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(error.InvalidRequestError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(error.RateLimitError, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> VoyageRanker:
        ranker = VoyageRanker(model=request.model, api_key=Secret.from_token(server.key), top_k=request.top_n)
        ranker._client = voyageai.Client(api_key=server.key, base_url=self.at(server))
        return ranker
