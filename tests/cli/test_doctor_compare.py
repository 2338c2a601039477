"""`rerankd doctor --compare`, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerankd import Reranker
from rerankd.cli.main import main
from rerankd.cli.queries import read_queries
from rerankd.compare import ndcg
from rerankd.errors import InvalidRequest

DTYPES = ("--compare", "float32,bfloat16")
GOOD = {
    "query": "capital of China?",
    "documents": ["Beijing.", "Paris.", "Gravity is a force."],
    "relevance": [3, 1, 0],
}


def write(folder: Path, *lines: object) -> str:
    """A data file; strings are written as they are."""
    path = folder / "data.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(path)


def test_the_report_compares_two_dtypes_on_the_caller_s_data(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [f"Document {number} tells of {number * number} things." for number in range(14)]
    grades = [number % 4 for number in range(14)]
    asked = {"query": "How many things?", "documents": documents, "relevance": grades, "instruct": "Find numbers."}
    unjudged = {"query": "What falls?", "documents": ["Gravity is a force.", "Beijing."], "id": "left alone"}
    data = write(tmp_path, asked, "", unjudged)
    status = main(["doctor", "--model", str(tiny_checkpoint), *DTYPES, "--data", data, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)

    assert report["data"] == {"source": data, "queries": 2, "documents": 16, "judged_queries": 1}
    assert report["reference"] == "float32"
    assert report["warnings"] == []
    assert set(report["known_answer_check"]) == {"float32", "bfloat16"}
    assert report["known_answer_check"]["float32"].startswith("failed: ") and status == 1
    assert set(report["comparisons"]) == {"bfloat16"}
    result = report["comparisons"]["bfloat16"]
    for difference in (result["score_difference"], result["logit_difference"]):
        assert 0 < difference["mean"] < difference["largest"] < 0.5 and difference["p95"] <= difference["largest"]
    assert 0.5 < result["kendall_tau"] <= 1
    assert {name: changed["of"] for name, changed in result["changed"].items()} == {
        "first_1": 2,
        "first_3": 1,
        "first_10": 1,
    }
    with Reranker(str(tiny_checkpoint), dtype="float32", skip_self_test=True) as reranker:
        ranked = reranker.rank("How many things?", documents, instruct="Find numbers.").ranked
    quality = result["ndcg_at_10"]
    assert quality["before"] == pytest.approx(ndcg([grades[score.index] for score in ranked], 10))
    assert quality["change"] == pytest.approx(quality["after"] - quality["before"])


def test_the_table_is_for_a_person(make_checkpoint: Callable[..., Path]) -> None:
    passes_the_check = make_checkpoint(seed=431)
    command = [sys.executable, "-m", "rerankd", "doctor", "--model", str(passes_the_check), "--compare"]
    done = subprocess.run([*command, "bfloat16, float32"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert "built-in set: 12 queries with 78 documents; 12 queries are judged" in lines
    assert any(re.fullmatch(r" +bfloat16 \(reference\) +float32", line) for line in lines)
    for name in ("score difference, mean", "logit difference, P95", "order, mean Kendall tau", "nDCG@10"):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 1
    assert any(re.fullmatch(r"first document changed +\d+ of 12", line) for line in lines)
    assert not any(line.startswith("first 10 documents") for line in lines)  # no query has more than eight
    verdict = (
        r"float32 moves scores by 0\.\d{4} on average \(largest 0\.\d{4}\), changes the first document of \d+ of 12 "
        r"queries and takes nDCG@10 from 0\.\d{4} to 0\.\d{4}\."
    )
    assert any(re.fullmatch(verdict, line) for line in lines)
    assert any(re.fullmatch(r"known-answer check +sane +sane", line) for line in lines)
    assert lines[-1] == "The built-in set is small: decide on your own data (--data FILE)."


def test_what_was_cut_is_said(
    make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = str(make_checkpoint(max_position_embeddings=256))
    data = write(tmp_path, GOOD, {"query": "long?", "documents": ["short", "word " * 400]})
    main(["doctor", "--model", short, *DTYPES, "--data", data, "--json"])
    [warning] = json.loads(capsys.readouterr().out)["warnings"]
    assert re.fullmatch(rf"{re.escape(data)}:2: document 1 truncated from \d+ to \d+ tokens", warning)
    main(["doctor", "--model", short, *DTYPES, "--data", data])
    assert f"Warnings: 1, the first: {warning}\n" in capsys.readouterr().out


def test_a_data_file_without_judgements_gives_no_ndcg(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, {"query": "capital of China?", "documents": ["Beijing."]})
    main(["doctor", "--model", str(tiny_checkpoint), *DTYPES, "--data", data])
    shown = capsys.readouterr().out
    assert "not judged, so there is no nDCG" in shown
    assert "float32 fails the known-answer check: the document that answers" in shown
    assert "nDCG@10" not in shown and "first document" not in shown
    assert re.search(r"bfloat16 moves scores by 0\.\d{4} on average \(largest 0\.\d{4}\)\.\n", shown)


def test_a_model_of_one_dtype_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "embedded", *DTYPES]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "embedded-multilingual runs in float32 whatever dtype is asked for: --compare needs a Qwen3-Rer" in shown.err


def test_a_dtype_that_the_processor_lacks_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rerankd.engine.loading.dtypes.instruction_sets", lambda: ["avx2"])
    assert main(["doctor", "--model", "./nowhere", "--device", "cpu", "--compare", "bfloat16,int8"]) == 1
    assert "This machine's cpu does not support int8: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([GOOD, "", "{"], ":3 is not JSON: "),
        ([GOOD, "[" * 100_000], ":2 is not JSON: "),
        ([GOOD, "[]"], ":2 is not an object with 'query' and 'documents'."),
        ([{"documents": ["a"]}], ":1: 'query' must be a string; it is missing."),
        ([{"query": 3, "documents": ["a"]}], ":1: 'query' must be a string; it is 3."),
        ([{"query": "q"}], ":1: 'documents' must be a list of one or more strings; it is missing."),
        ([{"query": "q", "documents": []}], ":1: 'documents' must be a list of one or more strings; it is []."),
        ([{"query": "q", "documents": "a"}], 'a list of one or more strings; it is "a".'),
        ([{"query": "q", "documents": ["a", {"text": "b"}]}], 'must hold strings; number 1 is {"text": "b"}.'),
        ([GOOD, {**GOOD, "relevance": [1, 0]}], ":2: 'relevance' has 2 grades for 3 documents."),
        ([{**GOOD, "relevance": 1}], ":1: 'relevance' must be a list of numbers; it is 1."),
        ([{**GOOD, "relevance": [1, "2", 0]}], 'must hold numbers from 0 to 100; number 1 is "2".'),
        ([{**GOOD, "relevance": [1, True, 0]}], "must hold numbers from 0 to 100; number 1 is true."),
        ([{**GOOD, "relevance": [1, 0, -1]}], "must hold numbers from 0 to 100; number 2 is -1."),
        ([{**GOOD, "relevance": [1, 0, float("nan")]}], "must hold numbers from 0 to 100; number 2 is NaN."),
        ([{**GOOD, "relevance": [1e300, 0, 0]}], "must hold numbers from 0 to 100; number 0 is 1e+300."),
        ([{**GOOD, "instruct": ["i"]}], ":1: 'instruct' must be a string; it is [\"i\"]."),
        ([], "There are no queries in "),
        (["", "  "], "There are no queries in "),
    ],
)
def test_malformed_data_is_one_line_that_says_where(
    lines: list[object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path, *lines)
    assert main(["doctor", *DTYPES, "--data", data]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("rerankd doctor: ") and len(shown.err.splitlines()) == 1
    assert data in shown.err and message in shown.err


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "latin").write_bytes("Zürich".encode("latin-1"))
    for name, message in (("nowhere", "cannot be read: No such file"), ("latin", "is not text in UTF-8")):
        assert main(["doctor", *DTYPES, "--data", str(tmp_path / name)]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("float32", "name two or more different dtypes"),
        ("float32,float32", "name two or more different dtypes"),
        ("float32,int4", "'int4' is none of float32, bfloat16"),
        ("auto,float32", "'auto' is none of float32, bfloat16"),
        ("float32,", "'' is none of float32, bfloat16"),
    ],
)
def test_dtypes_that_cannot_be_compared(value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--compare", value]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*DTYPES, "--dtype", "float32"), "--compare names the dtypes: leave --dtype out."),
        (("--data", "data.jsonl"), "--compare reads --data: name the dtypes too"),
    ],
)
def test_options_that_contradict_each_other(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_data_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(b"%PDF-1.4 text")
    with pytest.raises(InvalidRequest, match="is a PDF, not text"):
        read_queries(tmp_path / "data.jsonl")
    (tmp_path / "data.jsonl").write_bytes(b'\xef\xbb\xbf{"query": "q", "documents": ["a"]}\n')
    [query] = read_queries(tmp_path / "data.jsonl")
    assert query.documents == ("a",)
