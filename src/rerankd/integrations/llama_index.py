"""A node postprocessor for LlamaIndex: `pip install 'rerankd[llama-index]'`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import AfterValidator

from rerankd.integrations.ranked import aranked, checked_ranker, ranked
from rerankd.types import Score

dispatcher = get_dispatcher(__name__)


class RerankdPostprocessor(BaseNodePostprocessor):
    """Orders nodes by relevance; the score of each is replaced.

    reranker = RerankdPostprocessor(client=Client("http://127.0.0.1:8000"), top_n=3)
    index.as_query_engine(similarity_top_k=50, node_postprocessors=[reranker])
    """

    client: Annotated[Any, AfterValidator(checked_ranker)] = Field(
        exclude=True, description="A rerankd.Client or AsyncClient, or a rerankd.Reranker for a model in this process."
    )
    top_n: int | None = Field(default=3, description="How many nodes are kept, None for all.")
    instruct: str | None = Field(default=None, description="The sorting task, None for the default.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex stores it."""
        return "RerankdPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        return _kept(nodes, ranked(self.client, query, _texts(nodes), self.top_n, self.instruct))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        return _kept(nodes, await aranked(self.client, query, _texts(nodes), self.top_n, self.instruct))

    def _begin(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        """Sends the event of the start; returns the query."""
        if query_bundle is None:
            raise ValueError("A reranker needs the query: pass query_str or query_bundle.")
        top_n = len(nodes) if self.top_n is None else self.top_n
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name="rerankd"))
        return str(query_bundle.query_str)


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _kept(nodes: Sequence[NodeWithScore], results: Sequence[Score]) -> list[NodeWithScore]:
    """The nodes of the results, with their scores."""
    kept = [NodeWithScore(node=nodes[result.index].node, score=result.score) for result in results]
    dispatcher.event(ReRankEndEvent(nodes=kept))
    return kept
