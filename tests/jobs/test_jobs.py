"""A job ends with the same file however often it was interrupted, and never continues what differs."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.parquet
import pytest

from rerankd.errors import InferenceError, InvalidRequest
from rerankd.jobs.job import Job, Plan, Progress
from rerankd.jobs.journal import Journal, Scored
from rerankd.runs.about import path_of, read_about
from rerankd.runs.layouts import inputs_of
from rerankd.runs.run import Candidate, Run, read_run
from rerankd.runs.texts import Query, documents_of
from rerankd.testing import FakeRanker, shared_words
from support.killed_job import DOCUMENTS, QUERIES, job, run_killed, score, write_inputs

PLAN = Plan((), {"name": "fake"}, None, 100, skip_missing=False)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A BEIR folder of two queries, beside a run of three documents each."""
    folder = tmp_path / "beir"
    folder.mkdir()
    documents = [{"_id": "a", "title": "Sun", "text": "is hot"}, {"_id": "b", "title": "", "text": "ice is cold"}]
    documents += [{"_id": "c", "title": "", "text": "nothing"}, {"_id": "unused", "title": "", "text": "x"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    queries = [{"_id": "2", "text": "cold ice"}, {"_id": "1", "text": "hot sun"}]
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    lines = [f"{q} Q0 {d} 1 {s} bm25\n" for q in ("1", "2") for d, s in (("c", 3), ("b", 2), ("a", 1))]
    (tmp_path / "bm25.trec").write_text("".join(lines))
    return folder


def of_beir(folder: Path, out: str, plan: Plan = PLAN) -> tuple[Job, partial[Iterator[tuple[str, str]]]]:
    inputs = inputs_of(folder, folder.parent / "bm25.trec", None, None)
    return Job(folder.parent / out, plan, inputs.run, inputs.queries), partial(documents_of, [folder / "corpus.jsonl"])


@pytest.mark.parametrize("out", ["out.trec", "out.jsonl", "out.parquet"])
def test_a_run_is_written_in_its_new_order(out: str, beir: Path) -> None:
    one, corpus = of_beir(beir, out)
    ended = one.score(FakeRanker(), corpus)
    run = read_run(beir.parent / out)
    assert {qid: [d.doc_id for d in found] for qid, found in run.ranked.items()} == {
        "1": ["a", "c", "b"],  # b and c are tied: in the first stage's order
        "2": ["b", "c", "a"],
    }
    assert (ended.pairs, ended.queries, ended.share) == (6, 2, 1.0) and not one.folder.exists()


def test_rows_have_both_ranks_and_strictly_decreasing_logits(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.parquet")
    one.score(FakeRanker(), corpus)
    rows = pyarrow.parquet.read_table(beir.parent / "out.parquet").to_pylist()
    assert [(r["docid"], r["rank"], r["first_rank"], r["first_score"]) for r in rows[:3]] == [
        ("a", 1, 3, 1.0),
        ("c", 2, 1, 3.0),
        ("b", 3, 2, 2.0),
    ]
    assert rows[0]["logit"] > rows[1]["logit"] > rows[2]["logit"] and rows[1]["score"] == rows[2]["score"]


def test_depth_leaves_out_what_is_deeper(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl", replace(PLAN, depth=2))
    ranker = FakeRanker()
    one.score(ranker, corpus)
    assert [len(call.documents) for call in ranker.calls] == [2, 2]
    assert {d.doc_id for d in read_run(beir.parent / "out.jsonl").ranked["1"]} == {"b", "c"}


def test_a_document_that_the_corpus_lacks_is_named_or_left_out(beir: Path) -> None:
    run = beir.parent / "bm25.trec"
    run.write_text(run.read_text() + "1 Q0 z9 4 0 bm25\n")
    one, corpus = of_beir(beir, "out.jsonl")
    with pytest.raises(InvalidRequest, match=r"lacks 1 of 4 documents of the run: z9\. Is it the right corpus"):
        one.score(FakeRanker(), corpus)
    one, corpus = of_beir(beir, "out.jsonl", replace(PLAN, skip_missing=True))
    assert one.score(FakeRanker(), corpus, restart=True).missing == 1
    assert len(read_run(beir.parent / "out.jsonl").ranked["1"]) == 3


def test_a_query_without_a_text_is_named(beir: Path) -> None:
    run = beir.parent / "bm25.trec"
    run.write_text(run.read_text() + "7 Q0 a 4 0 bm25\n")
    with pytest.raises(InvalidRequest, match="1 of 3 queries of the run has no text, the first one: 7"):
        of_beir(beir, "out.jsonl")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace(PLAN, depth=50), r"depth \(100 then, 50 now\)"),
        (replace(PLAN, instruct="Find it"), "instruct"),
        (replace(PLAN, model={"name": "other"}), r"name \('fake' then, 'other' now\)"),
        (replace(PLAN, inputs=(("run", 1, 2),)), "the input files"),
    ],
)
def test_an_unfinished_job_is_continued_only_as_it_began(change: Plan, words: str, beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl")
    with pytest.raises(InferenceError):
        one.score(FakeRanker(_failing_on("hot sun", InferenceError("no"))), corpus)
    other, corpus = of_beir(beir, "out.jsonl", change)
    with pytest.raises(InvalidRequest, match=words):
        other.score(FakeRanker(), corpus)
    ranker = FakeRanker()
    other.score(ranker, corpus, restart=True)
    assert len(ranker.calls) == 2


def _failing_on(query: str, error: Exception):  # type: ignore[no-untyped-def]
    def score(given: str, document: str) -> float:
        if given == query:
            raise error
        return shared_words(given, document)

    return score


def test_what_is_scored_is_not_scored_again(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl")
    with pytest.raises(InferenceError):
        one.score(FakeRanker(_failing_on("cold ice", InferenceError("no"))), corpus)
    ranker, seen = FakeRanker(), list[Progress]()
    one.score(ranker, corpus, seen.append)
    assert [call.query for call in ranker.calls] == ["cold ice"] and seen[-1].begun_at > 0


def test_a_line_that_was_cut_off_is_scored_again_and_a_damaged_one_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for qid in ("1", "2"):
        journal = Journal(path)
        journal.add(Scored(qid, ["a"], [1.5], [0.8], [7]))
        journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    journal = Journal(path)
    assert "1" in journal and "2" not in journal and journal.read("1").logits == [1.5]
    journal.add(Scored("2", ["a"], [1.5], [0.8], [7]))
    journal.close()
    assert path.read_bytes() == whole
    path.write_bytes(b"x" + whole)
    with pytest.raises(InvalidRequest, match="damaged at byte 0"):
        Journal(path)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_ends_the_job_and_the_next_run_continues_it(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    corpus = partial(documents_of, [tmp_path / "corpus.jsonl"])
    with files_up_to(40_000), pytest.raises(InvalidRequest, match=r"cannot be (written|kept)"):
        job(tmp_path, "out.jsonl").score(FakeRanker(), corpus)
    with files_up_to(400_000), pytest.raises(InvalidRequest, match=r"out\.jsonl cannot be written: File too large"):
        job(tmp_path, "out.jsonl").score(FakeRanker(), corpus)
    assert not (tmp_path / "out.jsonl").exists() and not list(tmp_path.glob(".out*"))
    ranker = FakeRanker()
    job(tmp_path, "out.jsonl").score(ranker, corpus)
    assert not ranker.calls and len((tmp_path / "out.jsonl").read_text().splitlines()) == QUERIES * DOCUMENTS


@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_writes_what_one_that_was_not_writes(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    score(tmp_path, "undisturbed.jsonl")
    assert run_killed(tmp_path, "disturbed.jsonl", kills=12) >= 3
    assert (tmp_path / "disturbed.jsonl").read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.job"))


def test_two_processes_do_not_work_on_one_job(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl")
    two, _ = of_beir(beir, "out.jsonl")

    def again(query: str, document: str) -> float:
        with pytest.raises(InvalidRequest, match="Another process works on"):
            two.score(FakeRanker(), corpus)
        return 0.0

    one.score(FakeRanker(again), corpus)


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ({"query": "hot sun", "documents": ["ice", {"text": "hot sun"}]}, ["1:1", "1:0"]),
        ({"id": "x", "query": "hot sun", "documents": ["ice", "hot sun"]}, ["x:1", "x:0"]),
        (
            {
                "query": {"text": "hot sun", "qid": "x"},
                "candidates": [
                    {"docid": "a", "score": 2, "doc": {"segment": "ice"}},
                    {"docid": "b", "score": 1, "doc": "hot sun"},
                ],
            },
            ["b", "a"],
        ),
    ],
)
def test_requests_need_no_other_file(line: object, ids: list[str], tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(json.dumps(line))
    inputs = inputs_of(path, None, None, None)
    Job(tmp_path / "out.trec", PLAN, inputs.run, inputs.queries).score(FakeRanker(), inputs.documents)
    found = read_run(tmp_path / "out.trec").ranked
    assert [[one.doc_id for one in candidates] for candidates in found.values()] == [ids]


def test_wrong_inputs_are_named(beir: Path, tmp_path: Path) -> None:
    run = tmp_path / "bm25.trec"
    for arguments, words in (
        ((beir, None, None, None), "is a folder: pass a run"),
        ((tmp_path, run, None, None), "has no file queries"),
        ((run, run, None, None), "--run belongs to a folder"),
        ((run, None, None, None), "is a run: pass its texts"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            inputs_of(*arguments)
    with pytest.raises(InvalidRequest, match="the suffix says the format"):
        of_beir(beir, "out.csv")


def test_a_query_has_its_own_instruct_or_that_of_the_job(beir: Path) -> None:
    queries = [{"_id": "2", "text": "cold ice", "instruct": "Find ice"}, {"_id": "1", "text": "hot sun"}]
    (beir / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    one, corpus = of_beir(beir, "out.jsonl", replace(PLAN, instruct="Find it"))
    ranker = FakeRanker()
    one.score(ranker, corpus)
    about = read_about(beir.parent / "out.jsonl")
    assert about is not None and about.own_instructs == 1
    assert {call.query: call.instruct for call in ranker.calls} == {"cold ice": "Find ice", "hot sun": "Find it"}


def test_a_file_beside_the_result_says_how_it_was_made(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl", replace(PLAN, instruct="Find it"))
    with pytest.raises(InferenceError):
        one.score(FakeRanker(_failing_on("cold ice", InferenceError("no"))), corpus)
    one.score(FakeRanker(), corpus)
    out = beir.parent / "out.jsonl"
    about = read_about(out)
    assert about is not None and (about.model["name"], about.instruct) == ("fake", "Find it")
    assert (about.queries, about.documents) == (2, 6) and about.seconds > 0
    out.write_text("another run")
    assert read_about(out) is None
    path_of(out).write_text("{}")
    with pytest.raises(InvalidRequest, match="is damaged"):
        read_about(out)


def test_a_corpus_that_contradicts_itself_is_refused(beir: Path) -> None:
    corpus = beir / "corpus.jsonl"
    lines = corpus.read_text()
    corpus.write_text(f"{lines}\n" + json.dumps({"_id": "a", "title": "Sun", "text": "is hot"}))
    one, documents = of_beir(beir, "out.jsonl")
    one.score(FakeRanker(), documents)  # the same text twice is no contradiction
    corpus.write_text(f"{lines}\n" + json.dumps({"_id": "a", "text": "another"}))
    one, documents = of_beir(beir, "other.jsonl")
    with pytest.raises(InvalidRequest, match="document 'a' twice, with different texts"):
        one.score(FakeRanker(), documents)


@pytest.mark.parametrize("doc_id", ["a b", "", "a\u2003"])
def test_an_id_that_a_trec_run_cannot_hold_is_named_before_anything_is_scored(doc_id: str, tmp_path: Path) -> None:
    run = Run("r", {"q": (Candidate(doc_id, 1.0),)})
    with pytest.raises(InvalidRequest, match="cannot hold the id"):
        Job(tmp_path / "out.trec", PLAN, run, {"q": Query("text")})
    Job(tmp_path / "out.jsonl", PLAN, run, {"q": Query("text")}).score(FakeRanker(), lambda ids: [(doc_id, "text")])
    assert [one.doc_id for one in read_run(tmp_path / "out.jsonl").ranked["q"]] == [doc_id]


def test_a_query_that_cannot_be_asked_is_named(beir: Path) -> None:
    one, corpus = of_beir(beir, "out.jsonl")
    with pytest.raises(InvalidRequest, match="query '2': too long"):
        one.score(FakeRanker(_failing_on("cold ice", InvalidRequest("too long"))), corpus)
