"""The engine in the caller's own process."""

from __future__ import annotations

import asyncio
import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import rerankd
from rerankd import Passages, Ranking, Reranker
from rerankd.errors import CheckpointNotFound, Closed, InvalidRequest, MadeBeforeFork, SelfTestFailed, SettingsError

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


def test_rerank_is_a_deprecated_name_of_rank(reranker: Reranker) -> None:
    with pytest.warns(DeprecationWarning, match=r"Reranker\.rerank is deprecated: use rank") as warned:
        assert reranker.rerank("query", ["a"], top_n=1).ranked[0].index == 0
    assert [warning.filename for warning in warned] == [__file__]


def test_reports_progress_up_to_the_number_of_documents(reranker: Reranker) -> None:
    seen: list[int] = []
    reranker.rank("query", [f"{i} " + "word " * 200 for i in range(60)], progress=seen.append)
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == 60


def test_says_what_was_cut(reranker: Reranker) -> None:
    ranking = reranker.rank("query", ["short", "word " * 9000])
    assert ranking.warnings == ("document 1 truncated from 9000 to 8190 tokens",)


def test_no_documents_give_an_empty_ranking(reranker: Reranker) -> None:
    assert reranker.rank("query", []).ranked == ()


def test_refuses_a_top_n_below_one(reranker: Reranker) -> None:
    with pytest.raises(InvalidRequest, match="top_n must be at least 1"):
        reranker.rank("query", DOCUMENTS, top_n=0)


@pytest.mark.parametrize("name", ["query", "instruct", "documents"])
def test_half_a_character_is_replaced_and_told(reranker: Reranker, name: str) -> None:
    call: dict[str, Any] = {"query": "capital of China?", "documents": ["b", "Beijing"], "instruct": "Find."}
    half = {
        "query": "capital \ud83d of China?",
        "instruct": "\udcaf",
        "documents": ["b", "pdf \udcaf text", "\ud83d\ude00"],
    }
    ranking = reranker.rank(**{**call, name: half[name]})
    place = {"query": "the query", "instruct": "the instruct", "documents": "document 1, document 2"}[name]
    assert f"lone surrogates were replaced by U+FFFD in {place}" in ranking.warnings
    if name == "documents":
        assert [score.document for score in ranking.scores] == ["b", "pdf \ufffd text", "😀"]
        assert json.dumps(ranking.to_dict(), ensure_ascii=False).encode()


def test_asyncio_goes_on_while_it_ranks(reranker: Reranker) -> None:
    async def main() -> tuple[Ranking, int]:
        call = asyncio.create_task(reranker.arank("query", [f"{i} " + "word " * 200 for i in range(40)], top_n=3))
        turns = 0
        while not call.done():
            await asyncio.sleep(0)
            turns += 1
        return await call, turns

    ranking, turns = asyncio.run(main())
    assert ranking.ranked == reranker.rank("query", [f"{i} " + "word " * 200 for i in range(40)], top_n=3).ranked
    assert turns > 10


def test_an_asyncio_call_that_is_cancelled_frees_its_work(reranker: Reranker) -> None:
    async def main() -> None:
        call = asyncio.create_task(reranker.arank("query", [f"{i} " + "other " * 200 for i in range(400)]))
        while not reranker._scorer.engine.num_queued:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    assert len(reranker.rank("query", DOCUMENTS).ranked) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": None}, "model is of type NoneType: give a string"),
        ({"model": 3}, "model is of type int"),
        ({"model": " "}, "model is empty"),
        ({"device": None}, "device is of type NoneType"),
        ({"dtype": 16}, "dtype is of type int"),
    ],
)
def test_arguments_of_a_wrong_kind_are_refused_in_words(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Reranker(**arguments)


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = sys.modules['torch'] = None\n"
        "from rerankd import Reranker, SettingsError\n"
        "try: Reranker('embedded')\n"
        "except SettingsError as error: print(isinstance(error, ImportError), error.__suppress_context__, error)"
    )
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.startswith("True True A model in this process needs ")
    assert "pip install 'rerankd[server]'" in output


def test_a_copy_shares_the_model_and_a_pickle_is_refused_in_words(reranker: Reranker) -> None:
    assert copy.deepcopy({"client": reranker})["client"] is reranker
    with pytest.raises(TypeError, match="make one in the process that uses it"):
        pickle.dumps(reranker)
    assert repr(reranker) == "<Reranker: embedded-multilingual, float32 on cpu>"


def test_names_are_completed_in_a_notebook() -> None:
    assert {"Reranker", "Client", "AsyncClient"} <= set(dir(rerankd))


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
def test_a_forked_process_is_reported_at_once_and_the_parent_goes_on(reranker: Reranker) -> None:
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


def test_an_answer_is_found_at_any_depth_of_a_long_document(reranker: Reranker) -> None:
    towns = ("Aba", "Bern", "Cork", "Dakar", "Essen", "Fano", "Ghent", "Halle")
    others = [f"The market of {town} sells fish, bread and paper on day {day}. " * 6 for town in towns for day in "12"]
    answer = "The lighthouse keeper feeds penguins with sardines every morning. "
    for depth in range(0, len(others) + 1, 4):
        text = "".join((*others[:depth], answer, *others[depth:]))
        ranking = reranker.rank("Who feeds the penguins?", ["".join(others), text], passages=Passages(128))
        assert ranking[0].index == 1
        best = ranking[0].passages[0]
        assert ranking[0].best_text == text[best.start : best.end] and answer.strip() in ranking[0].best_text
        assert ranking[0].logit == best.logit == max(passage.logit for passage in ranking[0].passages if passage.logit)
        assert ranking[0].num_passages == len(ranking[0].passages) > 10
    whole = reranker.rank("Who feeds the penguins?", [answer], passages=True)
    assert whole[0].passages[0].end == len(answer) and whole[0].best_text == answer
    assert whole[0].logit == reranker.rank("Who feeds the penguins?", [answer])[0].logit


def test_the_sentence_that_answers_stands_out(reranker: Reranker) -> None:
    text = "Bread is baked daily. The lighthouse keeper feeds penguins with sardines. Fish is sold on Monday. "
    [result] = reranker.rank("Who feeds the penguins?", [text * 2], passages=Passages(highlight=True))
    best = max(result.passages[0].sentences, key=lambda one: one.score)
    assert "penguins" in text[best.start : best.end]
    assert len(result.passages[0].sentences) == 6


def test_passages_that_make_no_sense(reranker: Reranker) -> None:
    with pytest.raises(InvalidRequest, match="max_tokens of passages must be a whole number of at least 16; it is 3"):
        Passages(3)
    with pytest.raises(InvalidRequest, match=r"passages is of type int \(512\): send True, or Passages"):
        reranker.rank("query", ["a"], passages=512)  # type: ignore[arg-type]


def test_progress_counts_documents_where_passages_are_scored(reranker: Reranker) -> None:
    texts = ["The harbour town ships nutmeg. " * 40, "Cloves grow on Pemba.", "Bread is baked. " * 40]
    seen: list[int] = []
    ranking = reranker.rank("Where do cloves grow?", texts, passages=Passages(16), progress=seen.append)
    assert sum(score.num_passages for score in ranking) > 10
    assert seen == sorted(seen) and seen[-1] == 3
