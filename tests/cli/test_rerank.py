"""`rerankd rerank` on the command line, from a folder to a run that `rerankd eval` reads."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import run as run_command
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rerankd.cli.main import main
from rerankd.runs.about import read_about
from rerankd.runs.run import read_run

PLACES = ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi", "Tokyo", "Quito")


def records(kind: str) -> list[dict[str, Any]]:
    """Two documents about each place, one of which answers its query."""
    if kind == "queries":
        asked = [{"_id": f"q{n}", "text": f"When does the museum in {place} open?"} for n, place in enumerate(PLACES)]
        return [*asked, {"_id": "unjudged", "text": "When does the museum open?"}]
    if kind == "qrels":
        return [{"query-id": f"q{n}", "corpus-id": f"yes{n}", "score": 1} for n in range(len(PLACES))]
    answers = [f"The museum in {place} opens at {n + 1} o'clock." for n, place in enumerate(PLACES)]
    others = [f"When does bread bake in {place}? Open the oven when it does." for place in PLACES]
    return [
        {"_id": f"{name}{n}", "title": "", "text": text}
        for name, texts in (("yes", answers), ("no", others))
        for n, text in enumerate(texts)
    ]


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture
def beir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BEIR folder; its queries have judgements, but for one."""
    monkeypatch.setattr("rerankd.cli.reranking.cache_folder", lambda: tmp_path / "cache")
    folder = tmp_path / "museums"
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl.gz", records("corpus"))
    jsonl(folder / "queries.jsonl", records("queries"))
    rows = [f"{row['query-id']}\t{row['corpus-id']}\t{row['score']}\n" for row in records("qrels")]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nunjudged\tyes0\t1\n")
    return folder


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return ["rerank", str(folder), "--first", "bm25", "-o", str(out), "--model", "embedded", *more]


def test_a_folder_is_searched_and_reranked(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ours.trec"
    assert main(command(beir, out, "--depth", "5")) == 0
    said = capsys.readouterr().err
    assert "First stage, 8 queries" in said and "40 documents of 8 queries" in said
    first, ours = read_run(tmp_path / "ours.bm25.trec"), read_run(out)
    assert list(first.ranked) == list(ours.ranked) == [f"q{n}" for n in range(8)]
    for qid, found in ours.ranked.items():
        assert {one.doc_id for one in found} == {one.doc_id for one in first.ranked[qid]}
        assert found[0].doc_id == f"yes{qid[1:]}" and first.ranked[qid][0].doc_id == f"no{qid[1:]}"
    qrels, measures = beir / "qrels" / "test.tsv", ["nDCG@10", "RR@10", "R@100", "Judged@10"]
    runs = [tmp_path / "ours.bm25.trec", out]
    assert main(["eval", *map(str, runs), "--qrels", str(qrels), "--measures", *measures, "--json"]) == 0
    means = [run["means"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert means == [pytest.approx(of_ir_measures(qrels, run, measures), abs=1e-9) for run in runs]
    assert means[1]["nDCG@10"] == 1.0 and means[0]["nDCG@10"] < 0.7


def of_ir_measures(qrels: Path, run: Path, measures: Sequence[str]) -> dict[str, float]:
    """The figures of the command `ir_measures`, which wants TREC's judgements."""
    lines = [line.split("\t") for line in qrels.read_text().splitlines()[1:]]
    trec = qrels.with_suffix(".trec")
    trec.write_text("".join(f"{qid} 0 {doc_id} {grade}\n" for qid, doc_id, grade in lines))
    asked = [sys.executable, "-m", "ir_measures", str(trec), str(run), *measures, "--places", "9"]
    said = run_command(asked, check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split("\t") for line in said.splitlines())}


def test_a_snapshot_of_several_files_gives_the_same_run(beir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    for kind in ("corpus", "queries", "qrels"):
        (folder / kind).mkdir(parents=True)
        rows = records(kind)
        for part, some in enumerate((rows[:3], rows[3:])):
            pyarrow.parquet.write_table(pa.Table.from_pylist(some), folder / kind / f"test-{part:05}-of-00002.parquet")
    (folder / "README.md").write_text("---\nconfigs: []\n---\n")
    assert main(command(beir, tmp_path / "a.jsonl")) == main(command(folder, tmp_path / "b.jsonl")) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_another_split_has_other_queries(beir: Path, tmp_path: Path) -> None:
    assert main(command(beir, tmp_path / "ours.jsonl", "--split", "train")) == 0
    assert list(read_run(tmp_path / "ours.jsonl").ranked) == ["unjudged"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--split", "dev"], "no judgements of the split 'dev': pass --split with one of test, train"),
        (["--run", "bm25.trec"], "pass a folder, and no run"),
        (["--corpus", "none.jsonl"], "none.jsonl"),
    ],
)
def test_a_first_stage_that_cannot_be_had_is_explained(
    more: list[str], words: str, beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(beir, tmp_path / "ours.jsonl", *more)) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "ours.jsonl").exists()


def test_a_folder_is_evaluated_with_several_models(
    beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    instructs = tmp_path / "instructs.toml"
    instructs.write_text('hours = "Find opening hours"\nplain = "Find it"\n')
    output, page = tmp_path / "out", tmp_path / "report.html"
    options = ["--instructs", str(instructs), "-o", str(output), "--depth", "5"]
    asked = ["eval", str(beir), "--models", "embedded", *options]
    assert main([*asked, "--html", str(page)]) == 0
    said = capsys.readouterr()
    assert "embedded-hours improves nDCG@10 by +0." in " ".join(said.out.split())
    names = {"bm25.trec", "embedded-hours.jsonl", "embedded-plain.jsonl"}
    assert {path.name for path in output.iterdir()} == names | {f"{name}.about.json" for name in names if "l" in name}
    shown = page.read_text()
    assert "Find opening hours" in shown and "embedded-multilingual" in shown and "When does the museum" in shown
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.jsonl")}
    assert main([*asked, "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("is there already") == 2
    assert before == {path: path.stat().st_mtime_ns for path in output.glob("*.jsonl")}
    runs = json.loads(said.out)["runs"]
    assert [run["made"] and run["made"]["instruct"] for run in runs] == [None, "Find opening hours", "Find it"]
    assert main([*asked[:-1], "4"]) == 1
    assert "was made with another depth (5 then, 4 now)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "pass --models"),
        (["--models", "a/x", "b/x"], "Two models have the name 'x'"),
        (["--models", "embedded", "--qrels", "q.tsv"], "A folder is evaluated alone"),
        (["--models", "embedded", "--instructs", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_evaluated_is_explained(
    more: list[str], words: str, beir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(beir), *more]) == 1
    assert words in capsys.readouterr().err


def test_a_result_goes_to_stdout(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = tmp_path / "requests.jsonl"
    jsonl(requests, [{"id": "q", "query": "When does it open?", "documents": ["It opens at one.", "Bread."]}])
    asked = ["rerank", str(requests), "-o", "-", "--model", "embedded"]
    assert main(asked) == 0
    printed = capsys.readouterr()
    assert [line.split()[:4] for line in printed.out.splitlines()] == [
        ["q", "Q0", f"q:{n}", f"{n + 1}"] for n in (0, 1)
    ]
    assert "cannot be continued" in printed.err and not list(tmp_path.glob("*.job"))
    assert main([*asked, "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["docid"] == "q:0"
    assert main(["rerank", str(beir), "--first", "bm25", "-o", "-"]) == 1
    assert "pass a file as --output" in capsys.readouterr().err
    assert main(["rerank", str(requests), "-o", "--depth", "3"]) == 2
    assert "is an option, and no file" in capsys.readouterr().err


def test_long_documents_are_scored_in_passages(beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filler = "Nothing about this place is of any interest to people who travel by train or on foot. " * 12
    rows = [{**row, "text": filler + row["text"]} for row in records("corpus")]
    jsonl(beir / "corpus.jsonl.gz", rows)
    out = tmp_path / "ours.jsonl"
    assert main(command(beir, out, "--depth", "5", "--passage-tokens", "20")) == 0
    found = read_run(out).ranked
    assert all(len(one.passages) > 3 for some in found.values() for one in some)
    assert all(some[0].doc_id == f"yes{qid[1:]}" for qid, some in found.items())
    qrels, runs = str(beir / "qrels" / "test.tsv"), [str(tmp_path / "ours.bm25.jsonl"), str(out)]
    capsys.readouterr()
    assert main(["eval", *runs, "--qrels", qrels, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)["runs"][1]
    best = run["aggregates"]["aggregates"][0]
    assert best["mean"] == run["means"]["nDCG@10"] == 1.0
    assert run["aggregates"]["later"] == run["aggregates"]["relevant"] == 8 and run["made"]["passage_tokens"] == 20


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--passage-tokens", "8"], "at least 16"),
        (["--max-passages", "3"], "belong to --passages or --passage-tokens"),
        (["--passage-tokens", "64", "--then", "embedded"], "leave --then out"),
    ],
)
def test_wrong_settings_of_passages_are_named(
    more: list[str], words: str, beir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(beir, tmp_path / "ours.jsonl", *more)) == 1
    assert words in capsys.readouterr().err


def test_the_exact_prompt_is_kept_beside_the_run_and_shown_in_the_report(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from support.model_card import PREFIX, SUFFIX  # loads transformers

    requests, out, page = tmp_path / "requests.jsonl", tmp_path / "ours.jsonl", tmp_path / "report.html"
    own = {"id": "own", "query": "When?", "documents": ["Never."], "instruct": "Another task"}
    jsonl(requests, [{"id": "q", "query": "When does it open?", "documents": ["It opens at one.", "Bread."]}, own])
    model = ["--model", str(tiny_checkpoint), "--skip-self-test", "--instruct", "Find <hours>"]
    assert main(["rerank", str(requests), "-o", str(out), *model]) == 0
    about = read_about(out)
    assert about is not None and about.prompt_text == (
        f"{PREFIX}<Instruct>: Find <hours>\n<Query>: {{query}}\n<Document>: {{document}}{SUFFIX}"
    )
    jsonl(tmp_path / "qrels.jsonl", [{"query-id": "q", "corpus-id": "q:0"}])
    assert main(["eval", str(out), "--qrels", str(tmp_path / "qrels.jsonl"), "--html", str(page)]) == 0
    shown = page.read_text()
    assert "<summary>The prompt of ours</summary>" in shown
    assert "<span>&lt;Instruct&gt;: Find &lt;hours&gt;</span>\n<span>&lt;Query&gt;: {query}</span>" in shown
    assert "1 query has its own" in shown
