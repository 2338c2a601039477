"""Clients of NVIDIA's NIM, in LangChain, LlamaIndex and Haystack: they ask /v1/ranking and show its logits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import httpx
from haystack.utils import Secret
from haystack_integrations.components.rankers.nvidia import NvidiaRanker
from langchain_core.documents import Document
from langchain_nvidia_ai_endpoints import NVIDIARerank
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank as NVIDIAPostprocessor

from contract import (
    ORDER,
    QUERY,
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
from haystack import Document as HaystackDocument


def sigmoid(logit: float) -> float:
    """The score of a logit."""
    return 1 / (1 + math.exp(-logit))


def compressed(documents: Sequence[Document]) -> list[Ranked]:
    return [
        Ranked(document.metadata["index"], sigmoid(document.metadata["relevance_score"]), document.page_content)
        for document in documents
    ]


class TestNVIDIARerank(ClientContract):
    """It asks in batches of 32, so no call has too many documents."""

    distribution = "langchain-nvidia-ai-endpoints"
    call = "NVIDIARerank().compress_documents"
    reached = 'base_url="URL/v1"'
    base = "/v1"
    refusals = Refusals(
        wrong_key=Refusal(Exception, WRONG_KEY),
        unknown_model=Refusal(Exception, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(Exception, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> NVIDIARerank:
        options = {} if request.top_n is None else {"top_n": request.top_n}
        return NVIDIARerank(base_url=self.at(server), api_key=server.key, model=request.model, **options)

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        documents = [Document(text, metadata={"index": index}) for index, text in enumerate(request.documents)]
        return compressed(self.make(server, request).compress_documents(documents, request.query))

    def test_acompress_documents(self, server: Server) -> None:
        documents = [Document(text, metadata={"index": index}) for index, text in enumerate(Request().documents)]
        kept = asyncio.run(self.make(server, Request()).acompress_documents(documents, QUERY))
        assert [result.index for result in compressed(kept)] == ORDER


class TestNVIDIAPostprocessor(ClientContract):
    """It asks in batches of 64, after it has looked for the model in /v1/models."""

    distribution = "llama-index-postprocessor-nvidia-rerank"
    call = "NVIDIARerank().postprocess_nodes"
    reached = 'base_url="URL/v1"'
    base = "/v1"
    refusals = Refusals(
        wrong_key=Refusal(httpx.HTTPStatusError, "401"),
        unknown_model=Refusal(ValueError, "No locally hosted nobody/nothing was found."),
        too_many=None,
        rate_limit=Refusal(httpx.HTTPStatusError, "429"),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        options = {} if request.top_n is None else {"top_n": request.top_n}
        reranker = NVIDIAPostprocessor(base_url=self.at(server), api_key=server.key, model=request.model, **options)
        nodes = [NodeWithScore(node=TextNode(text=text, id_=str(i))) for i, text in enumerate(request.documents)]
        kept = reranker.postprocess_nodes(nodes, query_str=request.query)
        return [Ranked(int(found.node.node_id), sigmoid(found.score), found.node.text) for found in kept]


class TestNvidiaRanker(ClientContract):
    distribution = "nvidia-haystack"
    call = "NvidiaRanker().run"
    reached = 'api_url="URL/v1"'
    base = "/v1"
    too_many = 513
    refusals = Refusals(
        wrong_key=Refusal(ValueError, WRONG_KEY),
        unknown_model=Refusal(ValueError, UNKNOWN_MODEL),
        too_many=Refusal(ValueError, "512"),
        rate_limit=Refusal(ValueError, RATE_LIMIT),
    )

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        options = {} if request.top_n is None else {"top_k": request.top_n}
        key = Secret.from_token(server.key)
        ranker = NvidiaRanker(model=request.model, api_url=self.at(server), api_key=key, **options)
        documents = [HaystackDocument(id=str(index), content=text) for index, text in enumerate(request.documents)]
        kept = ranker.run(query=request.query, documents=documents)["documents"]
        return [Ranked(int(document.id), sigmoid(document.score), document.content) for document in kept]
