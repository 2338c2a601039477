"""What a ranking looks like: on terminals of several widths, in a pipe, and in each format."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rerankd.cli.cuts import in_words
from rerankd.cli.ranked import DIRECTIONS, around, cut_left, cut_right, widths
from support.server import Server
from support.terminal import on_a_terminal

TEXTS = {
    "english.txt": "Wash your hands often to keep colds away, " * 12,
    "中文.txt": "经常洗手、避免触摸面部并保持充足的睡眠可以有效预防感冒，" * 8,
    "hebrew.txt": "כדי למנוע הצטננות יש לשטוף ידיים לעתים קרובות ולהימנע ממגע בפנים " * 5,
    "emoji.txt": "👩‍👩‍👧‍👦 🤧🤧 Family with a cold 🧼 soap and water 👍🏽 every day 🇩🇪 " * 6,
    "a-file-with-a-name-that-is-far-longer-than-it-should-be.txt": "Sleep helps against colds, too. " * 12,
    "control.txt": "A \x1b[31mred\x1b[0m cold\x07 and \u202ereversed\u202c. " * 12,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text + "\n")
    return tmp_path


def asked(server: Server) -> tuple[str, ...]:
    return ("rank", "How can I prevent a cold?", *TEXTS, "--url", server.url, "--api-key", server.key)


def scored(server: Server, folder: Path) -> dict[str, str]:
    """Each file's line of the table begins so: `1  0.9685`, by the end of its name."""
    done = subprocess.run(
        [sys.executable, "-m", "rerankd", *asked(server), "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )
    results = json.loads(done.stdout)["results"]
    return {result["source"]: f"{place}  {result['score']:.4f}  " for place, result in enumerate(results, 1)}


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_every_line_keeps_rank_score_source_and_document(columns: int, folder: Path, embedded_server: Server) -> None:
    shown = on_a_terminal(columns, *asked(embedded_server), cwd=folder)
    lines = shown[shown.index("#") :].splitlines()  # after the progress
    assert lines[0].split() == ["#", "score", "source", "document"]
    expected = scored(embedded_server, folder)
    for line, (source, start) in zip(lines[1:], expected.items(), strict=False):
        assert line.startswith(start)
        assert source[-8:] in line  # the end of the name, and the line, are never cut off
        assert cell_len(line) <= columns
        document = line[line.index(source[-8:]) + 8 :].strip()
        assert len(document) >= 6 and document.endswith("…")
        assert document[:3] in TEXTS[source.rpartition(":")[0]].replace("\x1b", "\ufffd")
    assert ("█" in shown) == (columns >= 120)  # the bar is the first to give way
    assert "\x1b" not in shown and "\u202e" not in shown
    assert lines[len(TEXTS) + 1].startswith("scored by")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_explanations_are_lines_of_their_own(columns: int, folder: Path) -> None:
    arguments = ("rank", "how to prevent a cold", *TEXTS, "--model", "embedded", "--explain", "--output", "table")
    shown = on_a_terminal(columns, *arguments, cwd=folder)
    lines = shown[shown.index("#") :].splitlines()
    assert all(cell_len(line) <= columns for line in lines[: lines.index(next(filter(is_caption, lines)))])
    assert len([line for line in lines if "logit " in line]) == len(TEXTS)
    assert all(source[-8:] in shown for source in TEXTS)


def is_caption(line: str) -> bool:
    return line.startswith("scored by")


def test_a_pipe_gets_whole_documents_separated_by_tabs(folder: Path, embedded_server: Server) -> None:
    (folder / "two-lines.txt").write_text("A cold.\n\tWash your hands.\u2028Sleep.\r\n")
    done = subprocess.run(
        [sys.executable, "-m", "rerankd", *asked(embedded_server), "two-lines.txt", "--whole"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
    )
    rows = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    assert [len(row) for row in rows] == [4] * (len(TEXTS) + 1)
    assert [row[0] for row in rows] == [str(place) for place in range(1, len(rows) + 1)]
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    documents = {row[2]: row[3] for row in rows}
    assert documents.pop("two-lines.txt") == "A cold. Wash your hands. Sleep."
    assert documents == {name: text.strip() for name, text in TEXTS.items()}


def test_each_format_for_programs(embedded_server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 7, "text": "Wash,\\nhands", "url": "http://a"}\n{"id": 8, "text": "b"}\n')

    def output(name: str) -> str:
        arguments = ("rank", "cold", "a.jsonl", "--url", embedded_server.url, "--api-key", embedded_server.key)
        command = [sys.executable, "-m", "rerankd", *arguments, "--output", name]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True).stdout

    results = json.loads(output("json"))["results"]
    assert [json.loads(line) for line in output("jsonl").splitlines()] == results
    by_id = {result["id"]: result for result in results}
    assert by_id[7]["fields"] == {"url": "http://a"} and by_id[7]["document"] == "Wash,\nhands"
    assert "fields" not in by_id[8]
    rows = list(csv.DictReader(io.StringIO(output("csv"))))
    assert [row["source"] for row in rows] == [result["source"] for result in results]
    assert {row["document"] for row in rows} == {"Wash,\nhands", "b"}


@pytest.mark.parametrize("output", ["table", "tsv", "csv", "json", "jsonl"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_no_encoding_is_too_small(output: str, encoding: str, embedded_server: Server, folder: Path) -> None:
    arguments = (*asked(embedded_server), "--output", output)
    done = subprocess.run(
        [sys.executable, "-m", "rerankd", *arguments],
        capture_output=True,
        cwd=folder,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding)
    if encoding == "ascii" and output == "table":
        assert "##" in shown and "..." in shown
    if output == "json":
        documents = {result["document"] for result in json.loads(shown)["results"]}
        assert documents == {text.strip() for text in TEXTS.values()}


@given(st.integers(40, 250), st.integers(1, 5), st.integers(6, 12), st.integers(6, 300))
def test_a_line_fits_and_leaves_something_of_each(columns: int, place: int, score: int, source: int) -> None:
    shares = widths(columns, place, score, source)
    bar = shares.bar + 2 if shares.bar else 0
    assert place + 2 + score + 2 + bar + shares.source + 2 + shares.document <= columns
    assert shares.source >= 4 and shares.document >= 6
    assert not shares.bar or shares.document >= 30


@given(st.text(), st.integers(1, 60))
def test_what_is_cut_fits(text: str, width: int) -> None:
    text = "".join(filter(str.isprintable, text))
    assert cell_len(cut_right(text, width)) <= width
    assert cell_len(cut_left(text, width)) <= width


@pytest.mark.parametrize(
    ("warnings", "expected"),
    [
        (
            ["document 1 truncated from 300 to 254 tokens", "document 2 truncated from 7810 to 254 tokens"],
            ["2 of 3 documents were truncated (longest: c, 7,810 tokens, of which 254 were read)"],
        ),
        (
            ["2 of 3 documents were truncated (longest: document 2, from 7810 to 254 tokens)"],
            ["2 of 3 documents were truncated (longest: c, 7,810 tokens, of which 254 were read)"],
        ),
        (
            ["documents from 1 on: document 1 truncated from more than 7810 to 254 tokens", "instruct ignored: m"],
            ["instruct ignored: m", "c was truncated: more than 7,810 tokens, of which 254 were read"],
        ),
        (["documents from 1 on: document 0 is odd"], ["b is odd"]),
        (["document 9 is odd"], ["document 9 is odd"]),
    ],
)
def test_warnings_name_sources_and_come_once(warnings: list[str], expected: list[str]) -> None:
    assert in_words(warnings, ["a", "b", "c"]) == expected


# The best sentence of a search


LONG = "The office opens at nine. " * 9 + "\n\nA key is rotated on the page Keys. " + "Bills come by mail. " * 9


@pytest.mark.server
@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_shows_the_text_around_the_best_sentence(
    columns: int, tmp_path: Path, embedded_server: Server
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text(LONG)
    (tmp_path / "docs" / "one.md").write_text("A key opens a door")
    asked = ("search", "docs", "how is a key rotated?", "--index", str(tmp_path / "index"))
    server = ("--url", embedded_server.url, "--api-key", embedded_server.key)
    shown = on_a_terminal(columns, *asked, *server, cwd=tmp_path)
    [line] = [line for line in shown.splitlines() if "keys.md" in line]
    assert "A key is rotated" in line and line.rstrip().endswith("…") and cell_len(line) <= columns
    assert "The office opens at nine. The office" not in line
    [other] = [line for line in shown.splitlines() if "one.md" in line]
    assert other.rstrip().endswith("A key opens a door") or columns == 60
    piped = subprocess.run(
        [sys.executable, "-m", "rerankd", *asked, *server, "--output", "table"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    assert "The office opens at nine. The office" in piped and "\x1b" not in piped


@given(st.text(max_size=300), st.integers(0, 300), st.integers(0, 300), st.integers(1, 90))
def test_the_text_around_a_mark_fits_its_columns(text: str, one: int, other: int, columns: int) -> None:
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    shown = around(text, (start, end), columns)
    assert cell_len(shown.plain) <= columns
    bold = "".join(shown.plain[span.start : span.end] for span in shown.spans if span.style == "bold")
    assert bold.removesuffix("…") in " ".join(text[start:end].translate(DIRECTIONS).split()) or "\ufffd" in bold
