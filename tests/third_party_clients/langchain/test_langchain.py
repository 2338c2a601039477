"""LangChain's document compressors: what they give back are the documents, with a score in their metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

import cohere
import dashscope
from infinity_client import Client
from infinity_client.errors import UnexpectedStatus
from langchain_cohere import CohereRerank
from langchain_community.document_compressors import DashScopeRerank, InfinityRerank, JinaRerank, jina_rerank
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_voyageai import VoyageAIRerank
from voyageai import error

from contract import RATE_LIMIT, UNKNOWN_MODEL, WRONG_KEY, ClientContract, Ranked, Refusal, Refusals, Request, Server


class CompressorContract(ClientContract):
    """A compressor, by the same call for all."""

    compressor: ClassVar[type[BaseDocumentCompressor]]

    def __init_subclass__(cls) -> None:
        cls.call = f"{cls.compressor.__name__}().compress_documents"

    def make(self, server: Server, request: Request) -> BaseDocumentCompressor:
        raise NotImplementedError

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        compressor = self.make(server, request)
        return results_of(compressor.compress_documents(documents_of(request), request.query))


def documents_of(request: Request) -> list[Document]:
    return [Document(text, metadata={"index": index}) for index, text in enumerate(request.documents)]


def results_of(documents: Sequence[Document]) -> list[Ranked]:
    return [Ranked(doc.metadata["index"], doc.metadata["relevance_score"], doc.page_content) for doc in documents]


class TestCohereRerank(CompressorContract):
    """It sends `max_tokens_per_doc: null`. Left to itself, it returns three."""

    compressor = CohereRerank
    distribution = "langchain-cohere"
    reached = 'base_url="URL/cohere"'
    base = "/cohere"
    too_many = 10_001
    refusals = Refusals(
        wrong_key=Refusal(cohere.UnauthorizedError, "invalid api token"),
        unknown_model=Refusal(cohere.NotFoundError, "model 'nobody/nothing' not found"),
        too_many=Refusal(cohere.BadRequestError, "10000"),
        rate_limit=Refusal(cohere.TooManyRequestsError, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> CohereRerank:
        options = {} if request.top_n is None else {"top_n": request.top_n}
        return CohereRerank(cohere_api_key=server.key, base_url=self.at(server), model=request.model, **options)


class TestCohereRerankShared(TestCohereRerank):
    reached = 'base_url="URL"'
    base = ""
    too_many = 501
    refusals = Refusals(
        wrong_key=Refusal(cohere.UnauthorizedError, WRONG_KEY),
        unknown_model=Refusal(cohere.NotFoundError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(cohere.TooManyRequestsError, RATE_LIMIT),
    )


class TestJinaRerank(CompressorContract):
    compressor = JinaRerank
    distribution = "langchain-community"
    reached = 'jina_rerank.JINA_API_URL = "URL/jina/v1/rerank"'
    base = "/jina/v1/rerank"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, "Invalid API key"),
        unknown_model=Refusal(RuntimeError, "INPUT_MODEL_NOT_FOUND"),
        too_many=None,
        rate_limit=Refusal(RuntimeError, "RATE_REQUEST_LIMIT_EXCEEDED"),
    )

    def make(self, server: Server, request: Request) -> JinaRerank:
        jina_rerank.JINA_API_URL = self.at(server)
        options = {} if request.top_n is None else {"top_n": request.top_n}
        return JinaRerank(jina_api_key=server.key, model=request.model, **options)


class TestJinaRerankShared(TestJinaRerank):
    reached = 'jina_rerank.JINA_API_URL = "URL/v1/rerank"'
    base = "/v1/rerank"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, WRONG_KEY),
        unknown_model=Refusal(RuntimeError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(RuntimeError, RATE_LIMIT),
    )


class TestDashScopeRerank(CompressorContract):
    """It always asks for gte-rerank, and looks at no status: after a refusal there is no output to read."""

    compressor = DashScopeRerank
    distribution = "langchain-community"
    reached = 'dashscope.base_http_api_url = "URL/api/v1"'
    base = "/api/v1"
    refusals = Refusals(
        wrong_key=Refusal(AttributeError, "'NoneType' object has no attribute 'results'"),
        unknown_model=None,
        too_many=Refusal(AttributeError, "'NoneType' object has no attribute 'results'"),
        rate_limit=Refusal(AttributeError, "'NoneType' object has no attribute 'results'"),
    )

    def make(self, server: Server, request: Request) -> DashScopeRerank:
        dashscope.base_http_api_url = self.at(server)
        options = {} if request.top_n is None else {"top_n": request.top_n}
        return DashScopeRerank(dashscope_api_key=server.key, **options)


class TestInfinityRerank(CompressorContract):
    """It cuts the list itself, and takes no AuthenticatedClient. The client raises only if it is told to."""

    compressor = InfinityRerank
    distribution = "langchain-community"
    reached = 'client=Client("URL/infinity", headers=…)'
    base = "/infinity"
    refusals = Refusals(
        wrong_key=Refusal(UnexpectedStatus, "Unauthorized"),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(UnexpectedStatus, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> InfinityRerank:
        headers = {"Authorization": f"Bearer {server.key}"}
        client = Client(self.at(server), headers=headers, raise_on_unexpected_status=True)
        options = {} if request.top_n is None else {"top_n": request.top_n}
        return InfinityRerank(client=client, model=request.model, **options)


class TestVoyageAIRerank(CompressorContract):
    compressor = VoyageAIRerank
    distribution = "langchain-voyageai"
    reached = 'base_url="URL/voyage/v1"'
    base = "/voyage/v1"
    too_many = 1001
    refusals = Refusals(
        wrong_key=Refusal(error.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(error.InvalidRequestError, UNKNOWN_MODEL),
        too_many=Refusal(error.InvalidRequestError, "from 1 to 1000 are allowed"),
        rate_limit=Refusal(error.RateLimitError, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> VoyageAIRerank:
        return VoyageAIRerank(api_key=server.key, base_url=self.at(server), model=request.model, top_k=request.top_n)

    def test_acompress_documents(self, server: Server) -> None:
        compressor = self.make(server, Request(top_n=1))
        documents = asyncio.run(compressor.acompress_documents(documents_of(Request()), Request().query))
        assert [result.index for result in results_of(documents)] == [1]
        assert documents[0].metadata["total_tokens"] > 0


class TestVoyageAIRerankShared(TestVoyageAIRerank):
    reached = 'base_url="URL/v1"'
    base = "/v1"
