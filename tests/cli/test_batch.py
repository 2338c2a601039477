"""`rerankd batch` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankd.cli.main import main


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    texts = ["Beijing is the capital of China.", "Gravity attracts bodies."]
    path.write_text(json.dumps({"id": "q1", "query": "capital of China?", "documents": texts}) + "\n")
    return path


def test_scores_are_written_and_a_second_run_finds_them(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", str(tmp_path / "*.jsonl"), str(tmp_path / "out"), "--model", "embedded"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 pairs in") and "100.0%" in printed.err
    rows = [json.loads(line) for line in (tmp_path / "out" / "part-000000.jsonl").read_text().splitlines()]
    assert [(row["id"], row["index"]) for row in rows] == [("q1", 0), ("q1", 1)]
    assert rows[0]["score"] > rows[1]["score"] and rows[0]["error"] == ""
    assert main(command) == 0
    assert "nothing is left to score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pairs.jsonl"], "at least one input file, and the folder"),
        (["none.jsonl", "out"], "There is no file none.jsonl"),
        ([".", "out"], "is a folder: pass its files"),
        (["notes.txt", "out"], "not a .jsonl or .parquet file"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    pairs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pairs.parent)
    Path("notes.txt").touch()
    assert main(["batch", *arguments, "--model", "embedded"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("rerankd batch: ") and words in error
