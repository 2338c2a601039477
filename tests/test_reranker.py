"""The engine in the caller's own process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import rerankd
from rerankd import Reranker
from rerankd.errors import CheckpointNotFound, Closed, InvalidRequest, MadeBeforeFork, SelfTestFailed

DOCUMENTS = [
    "Paris is the capital of France.",
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies toward each other.",
]


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker("embedded") as reranker:
        yield reranker


def test_ranks_with_the_right_document_first(reranker: Reranker) -> None:
    ranking = reranker.rank("What is the capital of China?", DOCUMENTS, top_n=2)
    assert [score.index for score in ranking.ranked] == [1, 0]
    assert [score.document for score in ranking.scores] == DOCUMENTS
    assert 0 < ranking.ranked[1].score < ranking.ranked[0].score < 1


def test_reports_progress_up_to_the_number_of_documents(reranker: Reranker) -> None:
    seen: list[int] = []
    reranker.rank("query", [f"{i} " + "word " * 200 for i in range(60)], progress=seen.append)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 60


def test_says_what_was_cut(reranker: Reranker) -> None:
    ranking = reranker.rank("query", ["short", "word " * 400])
    assert ranking.warnings == ("document 1 truncated from 400 to 254 tokens",)


def test_no_documents_give_an_empty_ranking(reranker: Reranker) -> None:
    assert reranker.rank("query", []).ranked == ()


def test_refuses_a_top_n_below_one(reranker: Reranker) -> None:
    with pytest.raises(InvalidRequest, match="top_n must be at least 1"):
        reranker.rank("query", DOCUMENTS, top_n=0)


def test_a_random_checkpoint_fails_its_self_test(make_checkpoint: object, tiny_checkpoint: Path) -> None:
    with pytest.raises(SelfTestFailed, match="known-answer check"):
        Reranker(str(tiny_checkpoint), dtype="float32")


def test_an_explicit_model_never_falls_back(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound):
        Reranker(str(tmp_path / "nothing"))


def test_a_closed_reranker_says_so() -> None:
    reranker = Reranker("embedded")
    reranker.close()
    with pytest.raises(Closed, match="This Reranker is closed: make a new one"):
        reranker.rank("query", DOCUMENTS)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12: this process has threads
def test_a_forked_process_is_told_at_once_and_the_parent_goes_on(reranker: Reranker) -> None:
    def use(sender: Connection) -> None:
        try:
            reranker.rank("query", DOCUMENTS)
        except MadeBeforeFork as error:
            reranker.close()
            sender.send(str(error))

    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=use, args=(sender,))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        assert "load it in the child" in receiver.recv()
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert len(reranker.rank("query", DOCUMENTS).ranked) == 3


def test_exported_names_exist() -> None:
    assert all(hasattr(rerankd, name) for name in rerankd.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        rerankd.nothing  # noqa: B018  # the access is the test
