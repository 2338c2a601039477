"""rerankers: one class for the APIs of many providers. It looks at no status: a refusal is a reply without results."""

from __future__ import annotations

from typing import ClassVar

import requests
from rerankers import Reranker

from contract import ClientContract, Ranked, Refusal, Refusals, Request, Server


class ProviderContract(ClientContract):
    """One provider. Every document is asked for, always."""

    distribution = "rerankers"
    cuts = False
    provider: ClassVar[str]
    refusals = Refusals.all(Refusal(KeyError, "results"))._replace(too_many=None)

    def __init_subclass__(cls) -> None:
        cls.call = f'Reranker(…, "APIRanker", api_provider="{cls.provider}").rank'
        cls.reached = f'url="URL{cls.base}"'

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        options = {"api_provider": self.provider, "api_key": server.key, "url": self.at(server)}
        ranker = Reranker(request.model, model_type="APIRanker", **options)
        results = ranker.rank(request.query, request.documents).results
        assert [result.rank for result in results] == list(range(1, len(results) + 1))
        return [Ranked(result.doc_id, result.score, result.text) for result in results]


class TestCohere(ProviderContract):
    provider = "cohere"
    base = "/cohere/v1/rerank"
    too_many = 1000
    refusals = ProviderContract.refusals._replace(too_many=Refusal(KeyError, "results"))


class TestJina(ProviderContract):
    provider = "jina"
    base = "/jina/v1/rerank"


class TestVoyage(ProviderContract):
    provider = "voyage"
    base = "/voyage/v1/rerank"
    too_many = 1001
    refusals = Refusals.all(Refusal(KeyError, "data"))


class TestMixedbread(ProviderContract):
    provider = "mixedbread.ai"
    base = "/mixedbread/v1/reranking"
    refusals = Refusals.all(Refusal(KeyError, "data"))._replace(too_many=None)


class TestTextEmbeddingsInference(ProviderContract):
    """A refusal is an object in place of a list, a wrong key an empty body."""

    provider = "text-embeddings-inference"
    base = "/tei/rerank"
    refusals = Refusals(
        wrong_key=Refusal(requests.JSONDecodeError),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(TypeError, "string indices must be integers"),
    )


class TestSharedPath(TestJina):
    base = "/v1/rerank"
