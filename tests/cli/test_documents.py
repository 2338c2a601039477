"""What is read of stdin, files and folders, and what is said of the rest."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from pathlib import Path

import pytest

from rerankd.cli.documents import Found, Reading, read_documents
from rerankd.errors import InvalidRequest
from rerankd.files.folders import Selection


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, content: str | bytes) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def texts(found: Found) -> list[str]:
    return [document.text for document in found.documents]


def sources(found: Found) -> list[str]:
    return [document.source for document in found.documents]


def from_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes, reading: Reading | None = None) -> Found:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
    return read_documents(["-"], reading or Reading())


RECORDS = '{"id": 1, "text": "one"}\n\n"two"\n{"text": "three"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "A.JSONL", "a.ndjson", "a.NdJson", "a.jsonlines"])
def test_jsonl_is_told_by_its_suffix(name: str) -> None:
    found = read_documents([put(name, RECORDS)], Reading())
    assert texts(found) == ["one", "two", "three"]
    assert sources(found) == [f"{name}:1", f"{name}:3", f"{name}:4"]
    assert found.documents[0].record == {"id": 1}
    assert found.notes == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '["one", {"text": "two", "id": "b"}]'),
        ("A.JSON", '[\n  "one",\n  {"text": "two"}\n]\n'),
        ("a.json", '{"text": "one"}\n{"text": "two"}\n'),
        ("a.json", '{\n  "text": "one"\n}\n{\n  "text": "two"\n}\n'),
        ("a.json", '{"total": 2, "data": [{"text": "one"}, {"text": "two"}]}'),
        ("a.json", '{"query": "q", "documents": ["one", "two"]}'),
        ("a.csv", "id;text\n1;one\n2;two\n"),
        ("a.tsv", 'text\tid\none\t"an open quote\ntwo\t2\n'),
        ("a.csv", 'id,text\n1,one\n2,"two"\n'),
        ("a.csv", "\ufefftext,id\r\none,1\r\n\r\ntwo,2\r\n"),
        ("a.tsv", "text\tid\none\t1\ntwo\t2\n"),
        ("a.TSV", "id\ttext\n1\tone\n2\ttwo\n"),
        ("a.jsonl", '\ufeff{"text": "one"}\n"two"\n'),
        ("a.txt", "\ufeffone\r\n\n  two\n"),
    ],
)
def test_records_are_told_by_the_suffix(name: str, content: str) -> None:
    assert texts(read_documents([put(name, content)], Reading())) == ["one", "two"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-bom", "utf-32"])
def test_byte_order_marks_are_read_and_left_out(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"\xff\xfe" + "één\nzwei".encode("utf-16-le") if "bom" in encoding else "één\nzwei".encode(encoding)
    assert texts(read_documents([put("a.txt", content)], Reading())) == ["één", "zwei"]
    assert texts(from_stdin(monkeypatch, content)) == ["één", "zwei"]


def test_a_cell_holds_lines_and_commas() -> None:
    put("a.csv", 'title,body,extra\nA,"one, and\nmore",x\nB,two\nC,three,y,z\n')
    found = read_documents(["a.csv"], Reading())
    assert texts(found) == ["one, and\nmore", "two", "three"]
    assert sources(found) == ["a.csv:2", "a.csv:4", "a.csv:5"]
    assert found.documents[2].record == {"title": "C", "extra": "y", "column 4": "z"}
    assert found.notes == ["the text is the field 'body' of 3 records (--field takes another)"]
    assert texts(read_documents(["a.csv"], Reading(field_name="title"))) == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["text", "content", "document", "body", "passage", "page_content", "Text", "note"])
def test_the_text_is_found_under_the_usual_names(name: str) -> None:
    put("a.jsonl", json.dumps({"id": "x", name: "one"}))
    found = read_documents(["a.jsonl"], Reading())
    assert texts(found) == ["one"] and found.documents[0].record == {"id": "x"}
    assert bool(found.notes) == (name != "text")


def test_a_field_is_named_even_a_nested_one() -> None:
    put("a.jsonl", '{"text": "no", "meta": {"title": "one"}, "x.y": "two"}\n')
    assert texts(read_documents(["a.jsonl"], Reading(field_name="meta.title"))) == ["one"]
    assert texts(read_documents(["a.jsonl"], Reading(field_name="x.y"))) == ["two"]
    with pytest.raises(InvalidRequest, match=r"a\.jsonl:1 has no field 'titel': it has text, meta, x\.y"):
        read_documents(["a.jsonl"], Reading(field_name="titel"))


def test_jsonl_on_stdin_is_recognised_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = from_stdin(monkeypatch, b'{"id": 1, "content": "one"}\n{"id": 2, "content": "two"}\n')
    assert texts(found) == ["one", "two"] and sources(found) == ["stdin:1", "stdin:2"]
    assert found.notes[0] == "stdin is read as JSONL (--format lines takes its lines as they are)"
    assert texts(from_stdin(monkeypatch, b'["one", "two"]')) == ["one", "two"]
    found = from_stdin(monkeypatch, b'{"articles": [{"id": 1, "body": "one"}, {"id": 2, "body": "two"}]}')
    assert sources(found) == ["stdin.articles[0]", "stdin.articles[1]"]
    assert texts(from_stdin(monkeypatch, b'{\n "text": "one"\n}\n{\n "text": "two"\n}')) == ["one", "two"]
    assert texts(from_stdin(monkeypatch, b'{"text": "one"}', Reading("lines"))) == ['{"text": "one"}']
    assert texts(from_stdin(monkeypatch, b'"one"\n"two"', Reading("jsonl"))) == ["one", "two"]
    assert texts(from_stdin(monkeypatch, b"a,text\n1,one", Reading("csv"))) == ["one"]


def test_braces_are_never_scored_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = from_stdin(monkeypatch, b'{"level": "info", "event": "start"}\n')
    assert texts(found) == ['{"level": "info", "event": "start"}']
    assert "looks like JSON, but is read as lines" in found.notes[0]
    assert from_stdin(monkeypatch, b'[1] a footnote\n"quoted"\n').notes == []


def test_gzip_is_read_by_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(RECORDS.encode())
    assert texts(read_documents([put("a.jsonl.gz", packed)], Reading())) == ["one", "two", "three"]
    assert texts(from_stdin(monkeypatch, packed)) == ["one", "two", "three"]
    with pytest.raises(InvalidRequest, match="a broken gzip file"):
        read_documents([put("b.gz", packed[:-9])], Reading())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n", "is a PDF, not text: pdftotext "),
        (b"PK\x03\x04\x14\0\0\0a.txt", "is a ZIP archive, not text"),
        (b"PK\x03\x04\x14\0\0\0[Content_Types].xml", "is an Office document, not text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "is an old Office document, not text"),
        (b"{\\rtf1\\ansi text}", "is an RTF document, not text"),
        (b"BZh91AY", "is compressed with bzip2, not text: bzcat "),
        (b"\xfd7zXZ\0\0", "is compressed with xz, not text: xzcat "),
        (b"PAR1\x15", "is a Parquet file, not text"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image, not text"),
        (b"a" * 257 + b"ustar\0", "is a tar archive, not text"),
        (b"caf\xe9\n", "is not text in UTF-8: byte 3 is 0xe9; iconv -f latin1"),
        (b"a\0b", "is not text in UTF-8: it holds NUL bytes"),
    ],
)
def test_what_is_no_text_is_refused_by_name(content: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest) as of_file:
        read_documents([put("paper", content)], Reading())
    assert f"paper {message}" in str(of_file.value)
    with pytest.raises(InvalidRequest) as of_stdin:
        from_stdin(monkeypatch, content)
    assert f"stdin {message}" in str(of_stdin.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("deep.jsonl", "[" * 100_000, "deep.jsonl:1 is not JSON: it is nested too deeply"),
        ("deep.json", '{"a":' * 100_000, "deep.json:1 is not JSON: it is nested too deeply"),
        ("bad.jsonl", '"fine"\n{"text": 3}\n', "bad.jsonl:2 has none of the fields text, content"),
        ("bad.jsonl", "[1]", "bad.jsonl:1 is neither a string nor an object with a text field, but [1]"),
        ("bad.json", '["a", 3]', "bad.json[1] is neither a string nor an object with a text field, but 3"),
        ("bad.json", '["a"]\n{', "bad.json:2 is not JSON"),
        ("bad.csv", "a,b\n1,2\n", "bad.csv:2 has none of the fields text"),
        ("open.csv", 'text\n"one\ntwo\n', "open.csv is not CSV: unexpected end of data"),
        ("empty.csv", "text\n", "There are no documents in empty.csv."),
        ("blank", " \n\n", "There are no documents in blank."),
    ],
)
def test_mistakes_in_records_name_their_place(name: str, content: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_documents([put(name, content)], Reading())
    assert message in str(raised.value)


def test_stdin_without_documents_is_called_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="There are no documents in stdin"):
        from_stdin(monkeypatch, b"\n")


def tree() -> None:
    put("t/readme.md", "Read me.")
    put("t/data.jsonl", '{"text": "whole"}\n')
    put("t/src/a.py", "a = 1")
    put("t/src/gen/b.py", "b = 1")
    put("t/src/gen/keep.py", "k = 1")
    put("t/node_modules/x/index.js", "x()")
    put("t/app.min.js", "x()")
    put("t/package-lock.json", "{}")
    put("t/paper.pdf", "%PDF-1.4 text")
    put("t/pic.png", b"\x89PNG\0")
    put("t/latin.txt", b"caf\xe9")
    put("t/large.txt", "a" * 2_000_000)
    put("t/.hidden", "hidden")
    put("t/.git/HEAD", "ref")
    put("t/.gitignore", "src/gen/*\n!keep.py\n*.log\n")
    put("t/run.log", "log")
    put("t/src/.gitignore", "!run.log\n")
    put("t/src/run.log", "kept by the deeper file")


def test_a_folder_gives_what_somebody_wrote() -> None:
    tree()
    found = read_documents(["t"], Reading())
    assert sources(found) == ["t/data.jsonl", "t/readme.md", "t/src/a.py", "t/src/gen/keep.py", "t/src/run.log"]
    [note] = found.notes
    assert note.startswith("left out: ")
    for part in (
        "3 generated, see --no-ignore (first: t/app.min.js)",
        "3 not text (first: t/latin.txt)",
        "1 larger than 1 MB, see --max-filesize (t/large.txt)",
    ):
        assert part in note


def test_a_folder_is_narrowed_and_widened() -> None:
    tree()

    def named(**selection: object) -> list[str]:
        found = read_documents(["t"], Reading(selection=Selection(**selection)))  # type: ignore[arg-type]
        return [source.removeprefix("t/") for source in sources(found)]

    assert named(include=["*.py"]) == ["src/a.py", "src/gen/keep.py"]
    assert named(include=["*.md", "src/*.py"]) == ["readme.md", "src/a.py"]
    assert named(include=["*.py"], exclude=["gen/"]) == ["src/a.py"]
    assert "node_modules/x/index.js" in named(ignoring=False) and "src/gen/b.py" in named(ignoring=False)
    assert "large.txt" in named(max_bytes=3_000_000)
    with pytest.raises(InvalidRequest, match="There are no documents in t"):
        named(include=["*.rs"])


def test_a_part_of_a_repository_heeds_the_ignore_files_above_it() -> None:
    tree()
    assert sources(read_documents(["t/src"], Reading())) == ["t/src/a.py", "t/src/gen/keep.py", "t/src/run.log"]
    assert sources(read_documents([str(Path("t/src").resolve())], Reading()))[-1].endswith("src/run.log")


def test_a_format_that_is_named_holds_for_the_files_of_a_folder() -> None:
    put("r/a.jsonl", RECORDS)
    assert texts(read_documents(["r"], Reading("jsonl"))) == ["one", "two", "three"]


def test_odd_entries_of_a_folder_stop_nothing() -> None:
    put("o/fine.txt", "fine")
    os.symlink(".", "o/loop")
    os.symlink("nowhere", "o/dangling")
    os.symlink("self", "o/self")
    os.mkfifo("o/pipe")
    os.symlink("/proc/self/mem", "o/broken")  # a file that opens, and cannot be read from its beginning
    found = read_documents(["o"], Reading())
    assert sources(found) == ["o/fine.txt"]
    assert "3 unreadable" in found.notes[0]
