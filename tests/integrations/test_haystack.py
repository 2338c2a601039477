"""`RerankdRanker` in Haystack."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.utils import Secret

from rerankd import RemoteError
from rerankd.integrations.haystack import RerankdRanker

pytest_plugins = ["support.integration_server"]

QUERY = "What is the capital of China?"
DOCUMENTS = [
    Document(content="Gravity is a force.", meta={"source": "a"}, score=0.1),
    Document(content="The capital of China is Beijing.", meta={"source": "b"}),
    Document(content="Paris is the capital of France.", meta={"source": "c"}),
]


@pytest.fixture
def ranker(address: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[RerankdRanker]:
    url, key = address
    monkeypatch.setenv("THE_KEY", key)
    ranker = RerankdRanker(url, api_key=Secret.from_env_var("THE_KEY", strict=False), top_k=2)
    yield ranker
    ranker.close()


def test_the_best_documents_come_first_with_their_scores(ranker: RerankdRanker) -> None:
    best, second = ranker.run(query=QUERY, documents=DOCUMENTS)["documents"]
    assert (best.id, best.content, best.meta) == (DOCUMENTS[1].id, DOCUMENTS[1].content, {"source": "b"})
    assert best.score is not None and second.score is not None
    assert 1 >= best.score > second.score >= 0
    assert DOCUMENTS[1].score is None  # the caller's own stay as they are


def test_a_call_may_ask_for_another_number(ranker: RerankdRanker) -> None:
    assert len(ranker.run(query=QUERY, documents=DOCUMENTS, top_k=3)["documents"]) == 3
    assert ranker.run(query=QUERY, documents=[])["documents"] == []
    ranker.close()
    assert len(ranker.run(query=QUERY, documents=DOCUMENTS)["documents"]) == 2


def test_async_gives_the_same(ranker: RerankdRanker) -> None:
    async def main() -> list[Document]:
        found = await ranker.run_async(query=QUERY, documents=DOCUMENTS)
        await ranker.close_async()
        return list(found["documents"])

    assert asyncio.run(main()) == ranker.run(query=QUERY, documents=DOCUMENTS)["documents"]


def test_a_pipeline_can_be_copied_after_its_first_run(ranker: RerankdRanker) -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)
    call = {"ranker": {"query": QUERY, "documents": DOCUMENTS}}
    first = pipeline.run(call)
    other = copy.deepcopy(pipeline)
    assert other.run(call) == first
    other.get_component("ranker").close()


@pytest.mark.parametrize("with_key", [True, False])
def test_a_pipeline_with_it_is_stored_and_loaded(
    ranker: RerankdRanker, address: tuple[str, str], with_key: bool
) -> None:
    url, key = address
    pipeline = Pipeline()
    without_key = RerankdRanker(url, api_key=None, dialect="cohere", model="qwen3-rerank", top_k=1, instruct="Find.")
    pipeline.add_component("ranker", ranker if with_key else without_key)
    stored = pipeline.dumps()
    assert ("THE_KEY" in stored) is with_key
    assert not key or key not in stored
    loaded = Pipeline.loads(stored, allowed_modules=["rerankd.integrations.haystack"])
    assert loaded.dumps() == stored
    if with_key:
        found = loaded.run({"ranker": {"query": QUERY, "documents": DOCUMENTS}})["ranker"]["documents"]
        assert found == ranker.run(query=QUERY, documents=DOCUMENTS)["documents"]


def test_errors_reach_the_caller(address: tuple[str, str]) -> None:
    wrong = RerankdRanker(address[0], api_key=Secret.from_token("wrong"), dialect="cohere", model="no-such-model")
    with pytest.raises(RemoteError, match=r"answered 40[14]"):
        wrong.run(query=QUERY, documents=DOCUMENTS)
