"""litellm.rerank: one function for the APIs of many providers, results in Cohere's shape."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import litellm
from contract import (
    DOCUMENTS,
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


class ProviderContract(ClientContract):
    """One provider, by the prefix of the model's name."""

    distribution = "litellm"
    provider: ClassVar[str]

    def __init_subclass__(cls) -> None:
        cls.call = f'rerank("{cls.provider}/…")'
        cls.reached = f'api_base="URL{cls.base}"'

    def options(self, server: Server, request: Request) -> dict[str, Any]:
        named = {"top_n": request.top_n, "return_documents": request.return_documents}
        return {
            "model": f"{self.provider}/{request.model}",
            "query": request.query,
            "documents": request.documents,
            "api_key": server.key,
            "api_base": self.at(server),
            **{name: value for name, value in named.items() if value is not None},
        }

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        return self.results_of(litellm.rerank(**self.options(server, request)))

    def results_of(self, response: Any) -> list[Ranked]:
        assert response.id
        return [
            Ranked(result["index"], result["relevance_score"], result.get("document", {}).get("text"))
            for result in response.results
        ]

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [DOCUMENTS[result.index] for result in results]
        assert {result.document for result in self.rank(server, Request(return_documents=False))} == {None}

    def test_arerank(self, server: Server) -> None:
        response = asyncio.run(litellm.arerank(**self.options(server, Request(top_n=1))))
        assert [result.index for result in self.results_of(response)] == [1]


class TestHostedVLLM(ProviderContract):
    provider = "hosted_vllm"
    base = "/v1"
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(litellm.NotFoundError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )

    def test_instruction(self, server: Server) -> None:
        options = self.options(server, Request())
        response = litellm.rerank(**options, instruction="Find the capital.", truncate_prompt_tokens=512)
        assert [result.index for result in self.results_of(response)] == ORDER


class TestCohere(ProviderContract):
    """Version 2, which returns no documents."""

    provider = "cohere"
    base = "/cohere"
    too_many = 10_001
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError, "invalid api token"),
        unknown_model=Refusal(litellm.NotFoundError, "model 'nobody/nothing' not found"),
        too_many=Refusal(litellm.BadRequestError, "10000"),
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )


class TestCohereV1(ProviderContract):
    provider = "cohere"
    base = "/cohere/v1/rerank"
    too_many = 1000
    refusals = TestCohere.refusals._replace(too_many=Refusal(litellm.BadRequestError, "total max chunks"))


class TestCohereShared(ProviderContract):
    provider = "cohere"
    refusals = TestHostedVLLM.refusals


class TestJina(ProviderContract):
    """Whatever the address, it goes to /v1/rerank of that host."""

    provider = "jina_ai"
    refusals = TestHostedVLLM.refusals


class TestVoyage(ProviderContract):
    """On a shared path nothing in its body tells it from others, unless `top_n` is given."""

    provider = "voyage"
    base = "/voyage"
    too_many = 1001
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(litellm.BadRequestError, UNKNOWN_MODEL),
        too_many=Refusal(litellm.BadRequestError, "from 1 to 1000 are allowed"),
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )


class TestHuggingFace(ProviderContract):
    """It sends no model."""

    provider = "huggingface"
    base = "/tei"
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )


class TestHuggingFaceShared(TestHuggingFace):
    base = ""


class TestDashScope(ProviderContract):
    provider = "dashscope"
    base = "/compatible-api/v1"
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError, "Incorrect API key provided."),
        unknown_model=Refusal(litellm.NotFoundError, UNKNOWN_MODEL),
        too_many=Refusal(litellm.BadRequestError, "larger than 500"),
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )


class TestInfinity(ProviderContract):
    """Infinity answers with the one model it has."""

    provider = "infinity"
    base = "/infinity"
    refusals = Refusals(
        wrong_key=Refusal(litellm.AuthenticationError, "Unauthorized"),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(litellm.RateLimitError, RATE_LIMIT),
    )
