"""infinity-client: it raises only for statuses that its description does not have, and only when told to."""

from __future__ import annotations

import asyncio
from typing import Any

from infinity_client import AuthenticatedClient
from infinity_client.api.default import rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import HTTPValidationError, RerankInput
from infinity_client.types import UNSET

from contract import DOCUMENTS, RATE_LIMIT, ClientContract, Ranked, Refusal, Refusals, Request, Server


def body(request: Request) -> RerankInput:
    return RerankInput(
        model=request.model,
        query=request.query,
        documents=request.documents,
        top_n=UNSET if request.top_n is None else request.top_n,
        return_documents=bool(request.return_documents),
    )


def results_of(response: Any) -> list[Ranked]:
    assert response.id and response.created and response.usage.total_tokens == response.usage.prompt_tokens > 0
    return [Ranked(result.index, result.relevance_score, result.document) for result in response.results]


class TestRerankSync(ClientContract):
    distribution = "infinity_client"
    call = "rerank.sync"
    reached = 'AuthenticatedClient("URL/infinity", …)'
    base = "/infinity"
    refusals = Refusals(
        wrong_key=Refusal(UnexpectedStatus, "Unauthorized"),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(UnexpectedStatus, RATE_LIMIT),
    )

    def client(self, server: Server) -> AuthenticatedClient:
        return AuthenticatedClient(self.at(server), token=server.key, raise_on_unexpected_status=True)

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        return results_of(rerank.sync(client=self.client(server), body=body(request)))

    def test_documents(self, server: Server) -> None:
        results = self.rank(server, Request(return_documents=True))
        assert [result.document for result in results] == [DOCUMENTS[result.index] for result in results]

    def test_validation_error(self, server: Server) -> None:
        answer = rerank.sync(client=self.client(server), body=body(Request(documents=[])))
        assert isinstance(answer, HTTPValidationError)
        [problem] = answer.detail
        assert problem.loc == ["body", "documents"] and "at least 1 item" in problem.msg


class TestRerankAsyncio(TestRerankSync):
    call = "rerank.asyncio"

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        return results_of(asyncio.run(rerank.asyncio(client=self.client(server), body=body(request))))
