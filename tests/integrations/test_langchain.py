"""`RerankdCompressor` in LangChain."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import BaseDocumentCompressor, Document

from rerankd import AsyncClient, Client, RemoteError
from rerankd.integrations.langchain import RerankdCompressor
from rerankd.testing import FakeRanker
from support.playground_code import scores_of_code

pytest_plugins = ["support.integration_server"]

QUERY = "What is the capital of China?"
DOCUMENTS = [
    Document("Gravity is a force.", metadata={"source": "a"}),
    Document("The capital of China is Beijing.", metadata={"source": "b"}, id="2"),
    Document("Paris is the capital of France.", metadata={"source": "c"}),
]


def test_the_best_documents_come_first_with_their_scores(client: Client) -> None:
    compressor = RerankdCompressor(client=client, top_n=2)
    assert isinstance(compressor, BaseDocumentCompressor)
    best, second = compressor.compress_documents(DOCUMENTS, QUERY)
    assert best.page_content == DOCUMENTS[1].page_content
    assert (best.id, best.metadata["source"]) == ("2", "b")
    assert 1 >= best.metadata["relevance_score"] > second.metadata["relevance_score"] >= 0
    assert DOCUMENTS[1].metadata == {"source": "b"}  # the caller's own stays as it is


def test_async_gives_the_same(client: Client) -> None:
    compressor = RerankdCompressor(client=client)
    kept = asyncio.run(compressor.acompress_documents(DOCUMENTS, QUERY))
    assert kept == compressor.compress_documents(DOCUMENTS, QUERY)
    assert len(kept) == 3


def test_an_async_client_is_awaited(client: Client, address: tuple[str, str]) -> None:
    async def main() -> list[Document]:
        async with AsyncClient(*address) as asking:
            compressor = RerankdCompressor(client=asking)
            with pytest.raises(TypeError, match="can only be awaited"):
                compressor.compress_documents(DOCUMENTS, QUERY)
            assert await compressor.acompress_documents([], QUERY) == []
            return list(await compressor.acompress_documents(DOCUMENTS, QUERY))

    assert asyncio.run(main()) == RerankdCompressor(client=client).compress_documents(DOCUMENTS, QUERY)


@pytest.mark.parametrize("wrong", [None, "http://127.0.0.1:8000", Client, object(), 7])
def test_what_is_no_client_is_refused_in_words(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"give a rerankd\.Client, AsyncClient or Reranker"):
        RerankdCompressor(client=wrong)


def test_copies_and_pickles_rank_alike(client: Client) -> None:
    compressor = RerankdCompressor(client=client, top_n=2)
    kept = compressor.compress_documents(DOCUMENTS, QUERY)
    for other in (copy.deepcopy(compressor), pickle.loads(pickle.dumps(compressor))):
        assert other.compress_documents(DOCUMENTS, QUERY) == kept
        assert other.client is not client
        other.client.close()


def test_half_a_character_costs_no_ranking(client: Client) -> None:
    half = [*DOCUMENTS, Document("pdf \udcaf text")]
    assert len(RerankdCompressor(client=client, top_n=None).compress_documents(half, QUERY)) == 4


def test_top_n_none_keeps_all_and_nothing_stays_nothing(client: Client) -> None:
    compressor = RerankdCompressor(client=client, top_n=None)
    assert len(compressor.compress_documents(DOCUMENTS * 2, QUERY)) == 6
    assert compressor.compress_documents([], QUERY) == []


def test_errors_and_warnings_reach_the_caller(
    client: Client, address: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rerankd"):
        RerankdCompressor(client=client, instruct="Find lies.").compress_documents(DOCUMENTS, QUERY)
    assert "instruct ignored" in caplog.text  # by the embedded model: so it was sent
    with Client(address[0], "wrong") as stranger, pytest.raises(RemoteError, match="401"):
        RerankdCompressor(client=stranger).compress_documents(DOCUMENTS, QUERY)


def test_any_ranker_will_do() -> None:
    compressor = RerankdCompressor(client=FakeRanker(), top_n=1)
    assert [found.id for found in compressor.compress_documents(DOCUMENTS, QUERY)] == ["2"]
    assert [found.id for found in asyncio.run(compressor.acompress_documents(DOCUMENTS, QUERY))] == ["2"]


def test_a_model_in_this_process_does_the_same(client: Client) -> None:
    from rerankd import Reranker

    with Reranker("embedded") as reranker:
        here = RerankdCompressor(client=reranker).compress_documents(DOCUMENTS, QUERY)
    there = RerankdCompressor(client=client).compress_documents(DOCUMENTS, QUERY)
    assert [document.page_content for document in here] == [document.page_content for document in there]
    for ours, theirs in zip(here, there, strict=True):
        assert ours.metadata["relevance_score"] == pytest.approx(theirs.metadata["relevance_score"], abs=1e-4)


def test_the_example_runs(address: tuple[str, str]) -> None:
    example = Path(__file__).parents[2] / "examples" / "langchain_retriever.py"
    environment = {**os.environ, "RERANKD_URL": address[0], "RERANKD_API_KEY": address[1]}
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("Beijing is the capital of China.")


def test_the_playgrounds_code_runs(address: tuple[str, str], tmp_path: Path) -> None:
    first, second = scores_of_code(tmp_path, "LangChain", *address)
    assert first[1] == 1 and 1 >= first[0] >= second[0] >= 0
