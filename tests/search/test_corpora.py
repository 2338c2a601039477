"""Files of records as what is searched: each record is a document with its id, and an update reads what differs."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from rerankd import Hit, Index
from rerankd.cli.main import main

ROWS: list[dict[str, Any]] = [
    {"_id": "sun", "title": "Star", "text": "The sun is hot."},
    {"_id": "ice", "title": "", "text": "Ice is cold."},
    {"_id": "北", "title": "", "text": "北京是中国的首都。"},
]


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def opened(path: Path, **options: Any) -> Index:
    """Its index beside it."""
    return Index(path, folder=path.with_name(f"{path.name}.index"), **options)


def ids(hits: Sequence[Hit]) -> list[tuple[str, int]]:
    return sorted((hit.id, hit.first) for hit in hits)


def written(folder: Path, name: str) -> Path:
    """The rows, in the format of a name."""
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif name.endswith(".tsv"):
        path.write_text("".join(f"{row['_id']}\t{row['text']}\n" for row in ROWS))
    else:
        jsonl(path, ROWS)
    return path


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz", "corpus.parquet", "collection.tsv"])
def test_a_record_is_found_with_its_id_and_line(name: str, tmp_path: Path) -> None:
    index, first = opened(written(tmp_path, name)), 0 if name.endswith(".parquet") else 1
    assert index.last_update.records == 3 and not index.last_update.notes
    [hit] = index.search("hot")
    assert (hit.path, hit.id, hit.first, hit.last, hit.text) == (name, "sun", first, first, "The sun is hot.")
    assert hit.heading == ("" if name.endswith(".tsv") else "Star") and hit.source == f"{name}:{first} (sun)"
    assert ids(index.search("is")) == [("ice", first + 1), ("sun", first)]
    assert [one.id for one in index.search("首都")] == ["北"]
    assert [one.id for one in index.search("star")] == ([] if name.endswith(".tsv") else ["sun"])


def test_of_a_test_collection_the_corpus_is_searched(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl", ROWS)
    jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "what is hot?"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tsun\t1\n")
    index = opened(folder)
    assert [(hit.path, hit.id) for hit in index.search("hot")] == [("corpus.jsonl", "sun")]


def test_of_several_collections_all_documents_are_searched(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for language, text in (("de", "Die Sonne ist hot."), ("en", "The sun is hot.")):
        for kind in ("corpus", "queries"):
            (folder / f"{language}-{kind}").mkdir(parents=True)
            rows = [{"_id": "1", "text": text if kind == "corpus" else "what is hot?"}]
            jsonl(folder / f"{language}-{kind}" / "test.jsonl", rows)
    index = opened(folder)
    found = sorted(hit.path for hit in index.search("hot"))
    assert found == ["de-corpus/test.jsonl", "en-corpus/test.jsonl"]
    assert [hit.text for hit in index.search("hot", only=["en-corpus/"])] == ["The sun is hot."]


def test_a_file_of_other_records_stays_a_text(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    jsonl(folder / "log.jsonl", [{"level": "info", "message": "solar power"}])
    (folder / "table.tsv").write_text("solar\tpower\n")
    found = opened(folder).search("solar")
    assert sorted((hit.path, hit.id) for hit in found) == [("log.jsonl", ""), ("table.tsv", "")]


def test_another_field_may_hold_the_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "log.jsonl", [{"level": "info", "message": "solar power"}, {"message": "water"}])
    index = opened(path, field="message")

    assert ids(index.search("solar water")) == [("1", 1), ("2", 2)]
    assert opened(path, field="level").last_update.records == 1


def test_a_long_record_has_several_parts_and_its_id_in_each(tmp_path: Path) -> None:
    text = "\n".join(f"Line {number} is about solar power and nothing else at all." for number in range(60))
    index = opened(jsonl(tmp_path / "c.jsonl", [{"id": 7, "title": "Sun", "text": text}]))
    hits = index.search("solar")
    assert len(hits) > 2 and {(hit.id, hit.first, hit.heading) for hit in hits} == {("7", 1, "Sun")}
    assert len({hit.whole for hit in hits}) == 1


def test_damaged_records_are_named_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    first, last = json.dumps(ROWS[0]).encode(), json.dumps(ROWS[1]).encode()
    lines = [first, b"{", b"[]", b'{"_id": "x"}', b'{"text": [7]}', b"\xff", last]
    path.write_bytes(b"\n".join(lines))
    index = opened(path)
    assert ids(index.search("sun ice")) == [("ice", 7), ("sun", 1)]
    [note] = index.last_update.notes
    assert note.startswith("left out: 5 damaged records of c.jsonl, the first one:") and "c.jsonl:2 is not JSON" in note


def test_what_comes_before_the_damage_of_a_compressed_file_is_kept(tmp_path: Path) -> None:
    rows = [{"_id": f"d{n}", "text": f"solar {random.Random(n).random()}"} for n in range(500)]
    path = jsonl(tmp_path / "c.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[:-200])
    index = opened(path)
    assert 10 < index.last_update.records < 500 and "cannot be read to its end" in index.last_update.notes[0]


def test_a_parquet_file_without_a_text_is_named(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"number": [1, 2]}), tmp_path / "numbers.parquet")
    assert "2 damaged records" in opened(tmp_path / "numbers.parquet").last_update.notes[0]


def test_a_grown_file_costs_its_new_records(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", ROWS)
    opened(path)
    jsonl(path, [*ROWS, {"_id": "new", "text": "A new sun."}])
    assert opened(path).last_update.records == 1 and ids(opened(path).search("sun")) == [("new", 4), ("sun", 1)]
    jsonl(path, [ROWS[0], {**ROWS[1], "text": "Ice is not warm."}])
    index = opened(path)
    assert index.last_update.records == 1 and not index.search("首都") and not index.search("cold")
    assert ids(index.search("warm")) == [("ice", 2)] and opened(path).last_update.kept == 1


def test_after_any_changes_the_index_equals_a_new_one(tmp_path: Path) -> None:
    chance, words = random.Random(5), ["sun", "ice", "water", "power", "北京", "plant"]
    path, rows = tmp_path / "c.jsonl", list[dict[str, Any]]()
    for step in range(25):
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(rows) + 1)
            row = {"_id": f"d{chance.randrange(40)}", "text": " ".join(chance.choices(words, k=4)) + f" step{step}"}
            rows[place : place + chance.randrange(2)] = [] if chance.random() < 0.3 else [row]
        if step % 7:
            jsonl(path, rows)
        else:
            path.write_text("a text\nsun without records\n" * 20)
        index = opened(path)
    rebuilt = Index(path, folder=tmp_path / "rebuilt")
    assert len(index) == len(rebuilt)
    for word in words:
        found, expected = (sorted((h.id, h.first, h.text) for h in one.search(word, 1000)) for one in (index, rebuilt))
        assert found == expected and found


def test_the_commands_name_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "corpus.jsonl", ROWS)
    options = ["--index", str(tmp_path / "index")]
    assert main(["index", str(path), *options]) == 0
    assert "3 documents of them are new or changed" in capsys.readouterr().out
    assert main(["search", str(path), "hot", *options, "--no-rerank"]) == 0
    assert "corpus.jsonl:1 (sun)" in capsys.readouterr().out
    assert Index.open(tmp_path / "index").search("hot")[0].id == "sun"


@pytest.mark.model
def test_records_are_found_by_meaning(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", [{"_id": "zug", "text": "Der Zug fährt um acht Uhr ab."}, ROWS[1]])
    opened(path, first="dense")
    jsonl(path, [{"_id": "zug", "text": "Der Zug fährt um acht Uhr ab."}, ROWS[1], ROWS[2]])
    index = opened(path, first="dense")
    assert index.last_update.records == index.last_update.embedded == 1
    assert [(hit.id, hit.first) for hit in index.search("when does the train leave?", 1)] == [("zug", 1)]
    assert [(hit.id, hit.first) for hit in index.search("Which city is China's capital?", 1)] == [("北", 3)]
