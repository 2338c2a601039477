"""Parts of files: together they are the whole file, whatever their size."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.batch.files import format_of, parts_of, records_of, write_rows
from rerankd.batch.rows import Columns, Pair, ScoredPair, pairs_of
from rerankd.errors import InvalidRequest

LINES = st.lists(st.one_of(st.just(b""), st.text(max_size=30).map(lambda text: json.dumps(text).encode())), max_size=30)


@given(lines=LINES, unit_bytes=st.integers(1, 60), ends=st.booleans())
def test_parts_of_jsonl_hold_each_line_once(lines: list[bytes], unit_bytes: int, ends: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n" * ends)
        read = [record for part in parts_of(path, unit_bytes, 1) for record in records_of(part, ())]
    assert [value for _, value in read] == [json.loads(line) for line in lines if line.strip()]
    assert len({place for place, _ in read}) == len(read), "a place names one record"


@given(groups=st.lists(st.integers(0, 9), min_size=1, max_size=5), unit_rows=st.integers(1, 10))
def test_parts_of_parquet_hold_each_row_once(groups: list[int], unit_rows: int) -> None:
    numbers = list(range(sum(groups)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        with pyarrow.parquet.ParquetWriter(path, pa.schema({"number": pa.int64(), "other": pa.string()})) as writer:
            first = 0
            for size in groups:
                chunk = numbers[first : first + size]
                writer.write_table(pa.table({"number": chunk, "other": ["x"] * size}, schema=writer.schema))
                first += size
        parts = list(parts_of(path, 1, unit_rows))
        read = [record for part in parts for record in records_of(part, ("number", "absent"))]
    assert [record for _, record in read] == [{"number": number} for number in numbers]
    assert all(part.end - part.start <= unit_rows for part in parts)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": 7, "query": "q", "document": "d"}, [Pair("7", 0, "q", "d")]),
        ({"query": "q", "documents": ["d", "e"]}, [Pair("a:1", 0, "q", "d"), Pair("a:1", 1, "q", "e")]),
        ({"query": "q", "documents": []}, []),
        ({"query": " ", "document": "d"}, [Pair("a:1", 0, error="'query' is empty")]),
        ({"document": "d"}, [Pair("a:1", 0, error="'query' is missing")]),
        ({"query": "q"}, [Pair("a:1", 0, error="'document' is missing")]),
        ({"query": "q", "document": 3}, [Pair("a:1", 0, error="'document' is not a string, but of type int")]),
        (
            {"query": "q", "documents": ["d", None]},
            [Pair("a:1", 0, "q", "d"), Pair("a:1", 1, error="'document'[1] is missing")],
        ),
        ("not JSON", [Pair("a:1", 0, error="the record is not a JSON object")]),
        ([1], [Pair("a:1", 0, error="the record is not a JSON object")]),
    ],
)
def test_a_record_is_its_pairs_or_a_row_that_says_why_not(record: object, expected: list[Pair]) -> None:
    assert list(pairs_of("a:1", record, Columns())) == expected


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_rows_are_written_as_they_are(tmp_path: Path, name: str) -> None:
    rows = [
        ScoredPair("a", 0, 0.75, 1.0986122886681098, 40, True, ""),
        ScoredPair("日本\n", 3, None, None, 0, False, "'query' is empty"),
    ]
    path = tmp_path / name
    write_rows(path, rows)
    if name.endswith("jsonl"):
        read = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        read = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["id"] for row in read] == ["a", "日本\n"]
    assert read[0]["score"] == 0.75 and read[0]["logit"] == pytest.approx(1.0986122886681098, abs=1e-7)
    assert (read[1]["score"], read[1]["logit"], read[1]["error"]) == (None, None, "'query' is empty")


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.txt", "not a .jsonl or .parquet"), ("a.jsonl.gz", "Unpack it first"), ("a", "not a .jsonl or .parquet")],
)
def test_other_files_are_refused(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        format_of(Path(name))


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing else")
    with pytest.raises(InvalidRequest, match=r"a\.parquet cannot be read as Parquet"):
        list(parts_of(path, 1, 1))
