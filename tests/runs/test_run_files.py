"""Runs, judgements and texts in every format that rerankd reads."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.errors import InvalidRequest
from rerankd.runs.float32 import below, rounded, written
from rerankd.runs.judgements import read_judgements
from rerankd.runs.layouts import inputs_of
from rerankd.runs.run import Candidate, Run, decreasing, name_of, read_run
from rerankd.runs.texts import Query, documents_of, read_queries
from rerankd.runs.written import RankedPair, write_ranked

TREC = "q1 Q0 d1 1 2.5 bm25\nq1 Q0 d2 2 3.5 bm25\nq2 Q0 d9 1 -1 bm25\n"


def saved(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def ids(run: Run) -> dict[str, list[str]]:
    return {qid: [one.doc_id for one in found] for qid, found in run.ranked.items()}


def test_a_trec_run_is_ordered_by_its_scores_and_not_by_its_ranks(tmp_path: Path) -> None:
    run = read_run(saved(tmp_path, "bm25.trec", TREC))
    assert ids(run) == {"q1": ["d2", "d1"], "q2": ["d9"]} and run.name == "bm25" and not run.has_logits


def test_ties_of_32_bits_are_ordered_by_document_descending_as_in_trec_eval(tmp_path: Path) -> None:
    lines = "q Q0 a 1 1.00000001 x\nq Q0 c 2 1.0 x\nq Q0 b 3 1.0 x\n"
    assert ids(read_run(saved(tmp_path, "x.run", lines))) == {"q": ["c", "b", "a"]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.tsv", "7\td2\t1\n7\td1\t2\n"),
        ("top1000.tsv", "7\td2\tquery\tpassage\n7\td1\tquery\tother passage\n"),
        ("run.jsonl", '{"qid": 7, "docid": "d1", "logit": -1.5}\n{"qid": "7", "docid": "d2", "logit": 2}\n'),
        (
            "llm.jsonl",
            '{"query": {"qid": "7"}, "candidates": [{"docid": "d2", "score": 2}, {"docid": "d1", "score": 1}]}',
        ),
    ],
)
def test_other_formats_give_the_same_run(name: str, text: str, tmp_path: Path) -> None:
    assert ids(read_run(saved(tmp_path, name, text))) == {"7": ["d2", "d1"]}


def test_parquet_with_numbers_as_ids(tmp_path: Path) -> None:
    table = pa.table({"qid": [7, 7], "docid": [1, 2], "logit": [0.5, 1.5], "tokens": [30, 40]})
    pyarrow.parquet.write_table(table, tmp_path / "run.parquet")
    run = read_run(tmp_path / "run.parquet")
    assert run.has_logits and run.ranked == {"7": (Candidate("2", 1.5, 40), Candidate("1", 0.5, 30))}


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        pytest.param(".gz", gzip.compress, id="gzip"),
        pytest.param(".bz2", bz2.compress, id="bzip2"),
        pytest.param(".xz", lzma.compress, id="xz"),
    ],
)
def test_compressed_files_are_read_as_they_stand(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / f"bm25.trec{suffix}"
    path.write_bytes(pack(TREC.encode()))
    assert ids(read_run(path)) == {"q1": ["d2", "d1"], "q2": ["d9"]} and name_of(path) == "bm25"
    path.write_bytes(pack(TREC.encode() * 1000)[:-20])
    with pytest.raises(InvalidRequest, match=r"cannot be read to its end|twice"):
        read_run(path)


def test_zstandard_is_read_with_pyarrow(tmp_path: Path) -> None:
    with pa.output_stream(str(tmp_path / "run.trec.zst"), compression="zstd") as file:
        file.write(TREC.encode())
    assert ids(read_run(tmp_path / "run.trec.zst"))["q1"] == ["d2", "d1"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.trec", "q Q0 d 1 2.5\n", "a.trec:1 has 5 columns; a run has six"),
        ("a.tsv", "q\t0\td\t1\n", "a.tsv:1 is a judgement"),
        ("a.trec", "q 0 d 2\n", "a.trec:1 is a judgement"),
        ("a.tsv", "query-id\tcorpus-id\tscore\nq\td\t1\n", "a.tsv:1 is a judgement"),
        ("a.trec", "q Q0 d 1 2 x\n\nq Q0 e 1 high x\n", "a.trec:3: the score is not a number: 'high'"),
        ("a.trec", "q Q0 d 1 nan x\n", "not a number"),
        ("a.trec", TREC + TREC, "a.trec:4: query 'q1' has document 'd1' twice"),
        ("a.trec", "", "no documents in"),
        ("a.tsv", "q\td\t1\nq\te\n", "a.tsv:2 has 2 columns; the first line has 3"),
        ("a.jsonl", '{"qid": "q", "docid": "d"}', "a.jsonl:1 has neither 'logit' nor 'score'"),
        ("a.jsonl", '{"docid": "d", "score": 1}', "has no field 'qid'"),
        ("a.jsonl", '{"qid": ["q"], "docid": "d", "score": 1}', "'qid' must be a string; it is of type list"),
        ("a.jsonl", "[1]", "a.jsonl:1 is JSON, but not an object"),
        ("a.jsonl", "{", "a.jsonl:1 is not JSON"),
        ("a.jsonl", '{"query": "q", "candidates": []}', "'query' must be an object with 'qid'"),
        ("a.parquet", "PAR1", "cannot be read as Parquet"),
        ("a.jsonl", '{"qid": "q", "docid": "d", "score": true}', "not a number"),
        ("a.jsonl", '{"qid": "q", "docid": "d", "score": 1' + "0" * 400 + "}", "a.jsonl:1: the score is not a number"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1 is not JSON"),
        ("a.jsonl", '{"qid": 1.5, "docid": "d", "score": 1}', "'qid' must be a string; it is of type float"),
        (
            "a.jsonl",
            '{"qid": "q", "docid": "d", "score": 1}\n{"qid": "q", "docid": "e", "logit": 1}',
            "a.jsonl:2: some records have a logit",
        ),
        ("a.jsonl", '{"query-id": "q", "corpus-ids": "d"}', "'corpus-ids' must be a list"),
        ("a.jsonl", '{"query-id": "q", "corpus-ids": ["d", "d"]}', "document 'd' twice"),
        ("a.tsv", "q\td\tfirst\n", "a.tsv:1: the rank is not a number: 'first'"),
        ("a.trec.gz", TREC, "cannot be read to its end: Not a gzipped file"),
        ("a.trec.bz2", TREC, "cannot be read to its end"),
        ("a.trec.xz", TREC, "cannot be read to its end"),
        ("a.trec.zst", TREC, "cannot be read to its end"),
        ("a.trec.lz4", TREC, "cannot be read to its end"),
    ],
)
def test_a_run_that_cannot_be_read_names_the_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_run(saved(tmp_path, name, text))


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.trec cannot be read: No such file"):
        read_run(tmp_path / "none.trec")
    (tmp_path / "a.trec").write_bytes(b"q Q0 d 1 1 x\nq Q0 \xff 1 1 x\n")
    with pytest.raises(InvalidRequest, match=r"a\.trec:2 is not UTF-8"):
        read_run(tmp_path / "a.trec")


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**100, min_value=-(2.0**100)),
        max_size=40,
    )
)
def test_written_scores_decrease_strictly_and_stay_as_near_as_they_can(scores: list[float]) -> None:
    found = decreasing(scores)
    assert all(a > b for a, b in pairwise(found))
    if sorted(set(scores), reverse=True) == scores:
        assert found == scores


@given(st.floats(allow_nan=False))
def test_numbers_of_32_bits_are_numpy_s(value: float) -> None:
    with np.errstate(over="ignore"):
        theirs = np.float32(value)
    assert rounded(value) == float(theirs)
    if theirs > -np.inf:
        with np.errstate(over="ignore"):
            assert below(rounded(value)) == float(np.nextafter(theirs, np.float32(-np.inf)))
    if np.isfinite(theirs):
        assert rounded(float(written(rounded(value)))) == float(theirs)


def test_a_written_run_is_read_in_the_same_order(tmp_path: Path) -> None:
    pairs = [RankedPair("q", doc_id, rank, 2.5 - rank, 0.5, 1, 1.0, 30) for rank, doc_id in enumerate("acb", 1)]
    for name in ("ours.trec", "ours.jsonl", "ours.parquet"):
        write_ranked(tmp_path / name, pairs, "ours 1")
        assert ids(read_run(tmp_path / name)) == {"q": ["a", "c", "b"]}
    assert (tmp_path / "ours.trec").read_text().splitlines()[0] == "q Q0 a 1 1.5 ours_1"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qrels.txt", "q 0 a 2\nq 0 b -1\n"),
        ("test.tsv", "query-id\tcorpus-id\tscore\nq\ta\t2\nq\tb\t-1\n"),
        (
            "qrels.jsonl",
            '{"query-id": "q", "corpus-id": "a", "score": 2}\n{"qid": "q", "docid": "b", "relevance": -1.0}',
        ),
    ],
)
def test_judgements_of_every_format(name: str, text: str, tmp_path: Path) -> None:
    assert read_judgements([saved(tmp_path, name, text)]) == {"q": {"a": 2, "b": -1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q 0 a\n", "has 3 columns; judgements have four"),
        ("q 0 a 1.5\n", "the grade is not an integer of at most 1,000: '1.5'"),
        ("q 0 a 1e300\n", "not an integer of at most 1,000"),
        ("q 0 a nan\n", "not an integer"),
        ("q 0 a 1\nq 0 a 2\n", "second, different grade"),
        ("", "no judgements"),
    ],
)
def test_judgements_that_cannot_be_read_name_the_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_judgements([saved(tmp_path, "qrels.txt", text)])


def test_queries_and_documents_of_every_layout(tmp_path: Path) -> None:
    assert read_queries([saved(tmp_path, "q.tsv", "7\tone\ttwo\n")]) == {"7": Query("one\ttwo")}
    assert read_queries([saved(tmp_path, "q.jsonl", json.dumps({"_id": "7", "text": "one"}))]) == {"7": Query("one")}
    beir = [{"_id": "a", "title": "Title", "text": "text"}, {"_id": "b", "title": "", "text": "text"}]
    corpus = saved(tmp_path, "corpus.jsonl", "\n".join(map(json.dumps, beir)))
    assert dict(documents_of([corpus], {"a", "b"})) == {"a": "Title text", "b": "text"}
    assert dict(documents_of([corpus], {"b"})) == {"b": "text"}
    contents = saved(tmp_path, "c.jsonl", '{"id": "a", "contents": "text"}')
    assert dict(documents_of([contents], {"a"})) == {"a": "text"}
    passages = saved(tmp_path, "collection.tsv", 'a\tit says "text\nb\tother\n')
    assert dict(documents_of([passages], {"a"})) == {"a": 'it says "text'}
    documents = saved(tmp_path, "docs.tsv", "D1\thttp://x\tTitle\tBody\n")
    assert dict(documents_of([documents], {"D1"})) == {"D1": "Title Body"}


def test_texts_that_cannot_be_read_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"q\.tsv:2 has no tab"):
        read_queries([saved(tmp_path, "q.tsv", "7\tone\n8 two\n")])
    with pytest.raises(InvalidRequest, match="second, different text"):
        read_queries([saved(tmp_path, "q.tsv", "7\tone\n7\ttwo\n")])
    with pytest.raises(InvalidRequest, match=r"c\.jsonl:1 has no field 'text'"):
        dict(documents_of([saved(tmp_path, "c.jsonl", '{"id": "a"}')], {"a"}))


def test_bytes_that_are_no_text_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    path.write_bytes(TREC.encode() + b"q3 Q0 d\xe9 1 1 x\n")
    with pytest.raises(InvalidRequest, match=r"a\.trec:4 is not UTF-8 \(at byte 7"):
        read_run(path)
    path.write_bytes(TREC.encode("utf-16"))
    with pytest.raises(InvalidRequest, match=r"a\.trec:1 is not UTF-8"):
        read_run(path)
    path.write_bytes(b"\xef\xbb\xbf" + TREC.replace("\n", "\r\n").encode())
    assert ids(read_run(path)) == {"q1": ["d2", "d1"], "q2": ["d9"]}


def test_a_parquet_file_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    pyarrow.parquet.write_table(pa.table({"qid": ["q"], "docid": ["a"], "score": [1.0]}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_run(path)


def test_the_first_stage_of_a_snapshot_is_a_run(tmp_path: Path) -> None:
    table = pa.table({"query-id": ["q", "p"], "corpus-ids": [["b", "a"], ["c"]]})
    pyarrow.parquet.write_table(table, tmp_path / "bm25.parquet")
    assert ids(read_run(tmp_path / "bm25.parquet")) == {"q": ["b", "a"], "p": ["c"]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"query": "q", "documents": []}, "list of one or more texts"),
        ({"query": "q", "documents": [7]}, "neither a text nor an object"),
        ({"query": ["q"], "documents": ["d"]}, "'query' must be a string"),
        ({"query": {"qid": "1", "text": "q"}, "candidates": [{"docid": "a", "doc": "x"}] * 2}, "'a' stands twice"),
        (
            {"query": {"qid": "1", "text": "q"}, "candidates": [{"docid": "a", "doc": "x", "score": "x"}]},
            "not a number",
        ),
        ({"query": {"qid": "1", "text": "q"}, "candidates": [{"doc": "x"}]}, "has no field 'docid'"),
        ({"query": {"qid": "1"}, "candidates": [{"docid": "a", "doc": "x"}]}, "has no field 'text'"),
    ],
)
def test_requests_that_cannot_be_read_name_the_line(line: object, words: str, tmp_path: Path) -> None:
    good = json.dumps({"id": "0", "query": "q", "documents": ["d"]})
    with pytest.raises(InvalidRequest, match=rf"requests\.jsonl:2.*{words}"):
        inputs_of(saved(tmp_path, "requests.jsonl", f"{good}\n{json.dumps(line)}"), None, None, None)


def test_empty_texts_are_texts(tmp_path: Path) -> None:
    assert read_queries([saved(tmp_path, "q.tsv", "7\t\n")]) == {"7": Query("")}
    corpus = saved(tmp_path, "c.jsonl", '{"_id": "a", "title": "", "text": ""}\n{"_id": "b", "title": "T", "text": ""}')
    assert dict(documents_of([corpus])) == {"a": "", "b": "T "}


@pytest.mark.parametrize("levels", [[], ["default", "test"]], ids=["mteb 1", "mteb 2"])
def test_predictions_of_mteb_are_a_run(levels: list[str], tmp_path: Path) -> None:
    value: object = {"q1": {"a": 0.5, "c": 1.5, "b": 0.5}, "q2": {"d": -1.0}}
    for level in reversed(levels):
        value = {level: value}
    if levels:
        assert isinstance(value, dict)
        value["mteb_model_meta"] = {"model_name": "m", "revision": {"a": 1}}
    run = read_run(saved(tmp_path, "SciFact_predictions.json", json.dumps(value, indent=1)))
    assert ids(run) == {"q1": ["c", "b", "a"], "q2": ["d"]} and run.name == "SciFact_predictions"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "no predictions of MTEB"),
        ("{", "is not JSON"),
        ('{"q": {"a": "high"}}', "not a number"),
        ('{"q": {"a": 1}, "p": 7}', "'p' has no object"),
        ('{"de": {"test": {"q": {"a": 1}}}, "en": {"test": {"q": {"a": 1}}}}', "predictions of de, en"),
        ("{}", "no documents in"),
    ],
)
def test_other_json_is_no_run(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read_run(saved(tmp_path, "p.json", text))
