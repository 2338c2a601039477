"""Dify: the plugin SDK's reranker for OpenAI-compatible servers, which its model plugins are made of.

It spreads the scores over 0 to 1.
"""

from __future__ import annotations

import pytest
from dify_plugin.errors.model import CredentialsValidateFailedError, InvokeError
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel

from contract import ClientContract, Ranked, Refusal, Refusals, Request, Server


def credentials(server: Server, url: str) -> dict[str, str]:
    return {"endpoint_url": url, "api_key": server.key}


class TestOpenAICompatible(ClientContract):
    distribution = "dify_plugin"
    call = "OAICompatRerankModel().invoke"
    reached = 'endpoint_url="URL/v1"'
    base = "/v1"
    refusals = Refusals(
        wrong_key=Refusal(InvokeError, "401"),
        unknown_model=Refusal(InvokeError, "404"),
        too_many=None,
        rate_limit=Refusal(InvokeError, "429"),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        result = OAICompatRerankModel([]).invoke(
            request.model,
            credentials(server, self.at(server)),
            request.query,
            request.documents,
            top_n=request.top_n,
        )
        return [Ranked(document.index, document.score, document.text) for document in result.docs]

    def test_credentials_are_checked_with_a_call(self, server: Server) -> None:
        OAICompatRerankModel([]).validate_credentials("qwen3-rerank", credentials(server, self.at(server)))
        with pytest.raises(CredentialsValidateFailedError):
            wrong = Server(server.url, "wrong")
            OAICompatRerankModel([]).validate_credentials("qwen3-rerank", credentials(wrong, self.at(server)))
