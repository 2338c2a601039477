"""LlamaIndex's node postprocessors: what they give back are the nodes, with the score."""

from __future__ import annotations

from json import JSONDecodeError
from typing import ClassVar

import cohere
import dashscope
import voyageai
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.dashscope_rerank import DashScopeRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank
from llama_index.postprocessor.xinference_rerank import XinferenceRerank
from voyageai import error

from contract import RATE_LIMIT, UNKNOWN_MODEL, WRONG_KEY, ClientContract, Ranked, Refusal, Refusals, Request, Server

ALL = 5
"""`top_n` where all documents are wanted: it has a default of 2 to 5 everywhere."""


class PostprocessorContract(ClientContract):
    """A postprocessor, by the same call for all."""

    postprocessor: ClassVar[type[BaseNodePostprocessor]]

    def __init_subclass__(cls) -> None:
        cls.call = f"{cls.postprocessor.__name__}().postprocess_nodes"

    def make(self, server: Server, request: Request) -> BaseNodePostprocessor:
        raise NotImplementedError

    def rank(self, server: Server, request: Request) -> list[Ranked]:
        nodes = [
            NodeWithScore(node=TextNode(id_=str(index), text=text)) for index, text in enumerate(request.documents)
        ]
        ranked = self.make(server, request).postprocess_nodes(nodes, query_str=request.query)
        return [Ranked(int(node.node_id), node.score, node.text) for node in ranked]


class TestCohereRerank(PostprocessorContract):
    postprocessor = CohereRerank
    distribution = "llama-index-postprocessor-cohere-rerank"
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
        return CohereRerank(
            top_n=request.top_n or ALL, model=request.model, api_key=server.key, base_url=self.at(server)
        )


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


class TestDashScopeRerank(PostprocessorContract):
    """It looks at no status: after a refusal there is no output to read."""

    postprocessor = DashScopeRerank
    distribution = "llama-index-postprocessor-dashscope-rerank"
    reached = 'dashscope.base_http_api_url = "URL/api/v1"'
    base = "/api/v1"
    refusals = Refusals.all(Refusal(AttributeError, "'NoneType' object has no attribute 'results'"))

    def make(self, server: Server, request: Request) -> DashScopeRerank:
        dashscope.base_http_api_url = self.at(server)
        return DashScopeRerank(top_n=request.top_n or ALL, model=request.model, api_key=server.key)

    def test_the_default_model_is_served(self, server: Server) -> None:
        dashscope.base_http_api_url = self.at(server)
        nodes = [NodeWithScore(node=TextNode(text="The capital of China is Beijing."))]
        assert DashScopeRerank(api_key=server.key).postprocess_nodes(nodes, query_str="capital")[0].score


class TestJinaRerank(PostprocessorContract):
    postprocessor = JinaRerank
    distribution = "llama-index-postprocessor-jinaai-rerank"
    reached = 'base_url="URL/jina/v1"'
    base = "/jina/v1"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, "Invalid API key"),
        unknown_model=Refusal(RuntimeError, "INPUT_MODEL_NOT_FOUND"),
        too_many=None,
        rate_limit=Refusal(RuntimeError, "RATE_REQUEST_LIMIT_EXCEEDED"),
    )

    def make(self, server: Server, request: Request) -> JinaRerank:
        return JinaRerank(top_n=request.top_n or ALL, model=request.model, base_url=self.at(server), api_key=server.key)


class TestJinaRerankShared(TestJinaRerank):
    reached = 'base_url="URL/v1"'
    base = "/v1"
    refusals = Refusals(
        wrong_key=Refusal(RuntimeError, WRONG_KEY),
        unknown_model=Refusal(RuntimeError, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(RuntimeError, RATE_LIMIT),
    )


class TestSiliconFlowRerank(PostprocessorContract):
    """It sends fields that nobody else has; its exception holds the whole reply."""

    postprocessor = SiliconFlowRerank
    distribution = "llama-index-postprocessor-siliconflow-rerank"
    reached = 'base_url="URL/v1/rerank"'
    base = "/v1/rerank"
    refusals = TestJinaRerankShared.refusals

    def make(self, server: Server, request: Request) -> SiliconFlowRerank:
        options = {} if request.return_documents is None else {"return_documents": request.return_documents}
        return SiliconFlowRerank(
            model=request.model, base_url=self.at(server), api_key=server.key, top_n=request.top_n or ALL, **options
        )


class TestTextEmbeddingInference(PostprocessorContract):
    """It sends no model, and its `auth_token` as it is. It reads the reply whatever the status."""

    postprocessor = TextEmbeddingInference
    distribution = "llama-index-postprocessor-tei-rerank"
    reached = 'base_url="URL/tei"'
    base = "/tei"
    refusals = Refusals(
        wrong_key=Refusal(JSONDecodeError),
        unknown_model=None,
        too_many=None,
        rate_limit=Refusal(AssertionError),
    )

    def make(self, server: Server, request: Request) -> TextEmbeddingInference:
        token = f"Bearer {server.key}"
        return TextEmbeddingInference(top_n=request.top_n or ALL, base_url=self.at(server), auth_token=token)

    def test_a_bare_token(self, server: Server) -> None:
        nodes = [NodeWithScore(node=TextNode(text="The capital of China is Beijing."))]
        reranker = TextEmbeddingInference(base_url=self.at(server), auth_token=server.key)
        assert reranker.postprocess_nodes(nodes, query_str="capital")[0].score


class TestTextEmbeddingInferenceShared(TestTextEmbeddingInference):
    reached = 'base_url="URL"'
    base = ""
    refusals = TestTextEmbeddingInference.refusals._replace(wrong_key=Refusal(AssertionError))


class TestVoyageAIRerank(PostprocessorContract):
    """It has no option for the address: its client is given another one."""

    postprocessor = VoyageAIRerank
    distribution = "llama-index-postprocessor-voyageai-rerank"
    reached = '_client = voyageai.Client(base_url="URL/voyage/v1")'
    base = "/voyage/v1"
    too_many = 1001
    refusals = Refusals(
        wrong_key=Refusal(error.AuthenticationError, WRONG_KEY),
        unknown_model=Refusal(error.InvalidRequestError, UNKNOWN_MODEL),
        too_many=Refusal(error.InvalidRequestError, "from 1 to 1000 are allowed"),
        rate_limit=Refusal(error.RateLimitError, RATE_LIMIT),
    )

    def make(self, server: Server, request: Request) -> VoyageAIRerank:
        reranker = VoyageAIRerank(model=request.model, api_key=server.key, top_n=request.top_n)
        reranker._client = voyageai.Client(api_key=server.key, base_url=self.at(server))
        return reranker


class TestXinferenceRerank(PostprocessorContract):
    """It sends no key, so that it needs a server that asks for none, and cuts the list itself."""

    postprocessor = XinferenceRerank
    distribution = "llama-index-postprocessor-xinference-rerank"
    reached = 'base_url="URL/xinference"'
    base = "/xinference"
    keyed = False
    refusals = Refusals(
        wrong_key=Refusal(Exception, "Xinference call failed with status code 401."),
        unknown_model=Refusal(Exception, UNKNOWN_MODEL),
        too_many=None,
        rate_limit=Refusal(Exception, "Xinference call failed with status code 429."),
    )

    def make(self, server: Server, request: Request) -> XinferenceRerank:
        return XinferenceRerank(top_n=request.top_n or ALL, model=request.model, base_url=self.at(server))


class TestXinferenceRerankShared(TestXinferenceRerank):
    reached = 'base_url="URL"'
    base = ""
