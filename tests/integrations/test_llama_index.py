"""`RerankdPostprocessor` in LlamaIndex."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.base import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from rerankd import AsyncClient, Client
from rerankd.integrations.llama_index import RerankdPostprocessor
from support.playground_code import scores_of_code

pytest_plugins = ["support.integration_server"]

QUERY = "What is the capital of China?"
TEXTS = ["Gravity is a force.", "The capital of China is Beijing.", "Paris is the capital of France."]


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]


def test_the_best_nodes_come_first_with_their_scores(client: Client, nodes: list[NodeWithScore]) -> None:
    kept = RerankdPostprocessor(client=client, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node for node in kept] == [nodes[1].node, nodes[2].node]
    assert 1 >= kept[0].get_score() > kept[1].get_score() >= 0
    assert [node.score for node in nodes] == [0.1] * 3  # the caller's own stay as they are


def test_what_is_embedded_of_a_node_is_what_is_scored(client: Client) -> None:
    bare = NodeWithScore(node=TextNode(text="Beijing"))
    titled = NodeWithScore(node=TextNode(text="Beijing", metadata={"title": "The capital of China"}))
    hidden = NodeWithScore(node=TextNode(text="", metadata={"a": "b"}, excluded_embed_metadata_keys=["a"]))
    [best, *_] = RerankdPostprocessor(client=client).postprocess_nodes([hidden, bare, titled], query_str=QUERY)
    assert best.node is titled.node


def test_async_gives_the_same(client: Client, nodes: list[NodeWithScore]) -> None:
    reranker = RerankdPostprocessor(client=client)
    kept = asyncio.run(reranker.apostprocess_nodes(nodes, QueryBundle(QUERY)))
    assert kept == reranker.postprocess_nodes(nodes, QueryBundle(QUERY))
    assert len(kept) == 3


def test_an_async_client_is_awaited(client: Client, address: tuple[str, str], nodes: list[NodeWithScore]) -> None:
    async def main() -> list[NodeWithScore]:
        async with AsyncClient(*address) as asking:
            reranker = RerankdPostprocessor(client=asking)
            with pytest.raises(TypeError, match="can only be awaited"):
                reranker.postprocess_nodes(nodes, query_str=QUERY)
            return list(await reranker.apostprocess_nodes(nodes, QueryBundle(QUERY)))

    assert asyncio.run(main()) == RerankdPostprocessor(client=client).postprocess_nodes(nodes, query_str=QUERY)


@pytest.mark.parametrize("wrong", [None, "http://127.0.0.1:8000", Client, object()])
def test_what_is_no_client_is_refused_in_words(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"give a rerankd\.Client, AsyncClient or Reranker"):
        RerankdPostprocessor(client=wrong)


def test_copies_rank_alike(client: Client, nodes: list[NodeWithScore]) -> None:
    reranker = RerankdPostprocessor(client=client, top_n=2)
    kept = reranker.postprocess_nodes(nodes, query_str=QUERY)
    other = copy.deepcopy(reranker)
    assert other.postprocess_nodes(nodes, query_str=QUERY) == kept
    other.client.close()


def test_nothing_stays_nothing_and_a_query_is_needed(client: Client, nodes: list[NodeWithScore]) -> None:
    reranker = RerankdPostprocessor(client=client, top_n=None)
    assert reranker.postprocess_nodes([], query_str=QUERY) == []
    assert len(reranker.postprocess_nodes(nodes * 2, query_str=QUERY)) == 6
    with pytest.raises(ValueError, match="needs the query"):
        reranker.postprocess_nodes(nodes)


def test_it_can_be_stored_without_its_client(client: Client) -> None:
    stored = RerankdPostprocessor(client=client, top_n=7).to_dict()
    assert stored["class_name"] == "RerankdPostprocessor"
    assert stored["top_n"] == 7
    assert "client" not in stored


def test_it_is_seen_by_whoever_watches(client: Client, nodes: list[NodeWithScore]) -> None:
    seen: list[BaseEvent] = []

    class Watch(BaseEventHandler):
        def handle(self, event: BaseEvent, **_: object) -> None:
            seen.append(event)

    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(Watch())
    try:
        kept = RerankdPostprocessor(client=client, top_n=1).postprocess_nodes(nodes, query_str=QUERY)
    finally:
        dispatcher.event_handlers.pop()
    start, end = seen
    assert isinstance(start, ReRankStartEvent) and isinstance(end, ReRankEndEvent)
    assert start.top_n == 1
    assert end.nodes == kept


def test_a_model_in_this_process_does_the_same(client: Client, nodes: list[NodeWithScore]) -> None:
    from rerankd import Reranker

    with Reranker("embedded") as reranker:
        here = RerankdPostprocessor(client=reranker).postprocess_nodes(nodes, query_str=QUERY)
    there = RerankdPostprocessor(client=client).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.node_id for node in here] == [node.node_id for node in there]
    assert [node.score for node in here] == pytest.approx([node.score for node in there], abs=1e-4)


def test_the_playgrounds_code_runs(address: tuple[str, str], tmp_path: Path) -> None:
    first, second = scores_of_code(tmp_path, "LlamaIndex", *address)
    assert first[1] == 1 and 1 >= first[0] >= second[0] >= 0
