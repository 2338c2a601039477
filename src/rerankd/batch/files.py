"""Reads parts of JSONL and Parquet files, and writes the output's. Knows no model and no column.

A part of a JSONL file is a range of bytes: the lines that begin in it. A part of a Parquet file is a range of rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rerankd.batch.rows import OF_PASSAGES, ScoredPair
from rerankd.disk import sync
from rerankd.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    import pyarrow.parquet

Format = Literal["jsonl", "parquet"]

SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True, slots=True)
class Part:
    """The input of one unit of work: bytes (JSONL) or rows (Parquet) `start` to `end` of a file."""

    path: Path
    start: int
    end: int


def format_of(path: Path) -> Format:
    """The format by suffix.

    Raises:
        InvalidRequest: no batch reads such a file.
    """
    if (found := SUFFIXES.get(path.suffix.lower())) is not None:
        return found
    unpack = " Unpack it first: a part of a compressed file cannot be read alone." if path.suffix == ".gz" else ""
    raise InvalidRequest(f"{path} is not a .jsonl or .parquet file.{unpack}")


def parts_of(path: Path, unit_bytes: int, unit_rows: int) -> Iterator[Part]:
    """Splits a file without reading its rows.

    Args:
        unit_bytes: of a part of JSONL.
        unit_rows: the most of a part of Parquet, which never crosses a row group.

    Raises:
        InvalidRequest: it cannot be read.
    """
    if format_of(path) == "jsonl":
        size = path.stat().st_size
        yield from (Part(path, start, min(start + unit_bytes, size)) for start in range(0, size, unit_bytes))
        return
    first = 0
    with _parquet_file(path) as file:
        for group in range(file.metadata.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            yield from (Part(path, start, min(start + unit_rows, last)) for start in range(first, last, unit_rows))
            first = last


def records_of(part: Part, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Each record with its place, `file:byte` or `file:row`; a line that is no JSON gives its text.

    Args:
        columns: those that are read from Parquet, where they exist.
    """
    return _lines(part) if format_of(part.path) == "jsonl" else _rows(part, columns)


def _lines(part: Part) -> Iterator[tuple[str, object]]:
    with part.path.open("rb") as file:
        place = part.start
        if place:  # the line before the range belongs to the part in which it begins
            file.seek(place - 1)
            place += len(file.readline()) - 1
        while place < part.end and (line := file.readline()):
            if line.strip():
                yield f"{part.path.name}:{place}", _json(line)
            place += len(line)


def _json(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return line.decode(errors="replace")


def _rows(part: Part, columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    with _parquet_file(part.path) as file:
        known = [name for name in columns if name in file.schema_arrow.names]
        first = 0
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if first <= part.start < first + size:
                rows = file.read_row_group(group, columns=known).slice(part.start - first, part.end - part.start)
                for row, record in enumerate(rows.to_pylist(), part.start):
                    yield f"{part.path.name}:{row}", record
                return
            first += size


def _parquet_file(path: Path) -> pyarrow.parquet.ParquetFile:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", error, "convert the file to JSONL", "parquet") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise InvalidRequest(f"{path} cannot be read as Parquet: {error}") from None


def write_rows(path: Path, rows: Sequence[ScoredPair], with_passages: bool = False) -> None:
    """Writes and syncs a whole file; its format is by its suffix."""
    names = [field.name for field in fields(ScoredPair) if with_passages or field.name not in OF_PASSAGES]
    if format_of(path) == "jsonl":
        with path.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(f"{json.dumps({name: getattr(row, name) for name in names}, ensure_ascii=False)}\n")
    else:
        _write_parquet(path, rows, names)
    sync(path)


def _write_parquet(path: Path, rows: Sequence[ScoredPair], names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    types: dict[str, Any] = {
        "id": pa.string(),
        "index": pa.int32(),
        "score": pa.float64(),
        "logit": pa.float32(),
        "tokens": pa.int32(),
        "truncated": pa.bool_(),
        "error": pa.string(),
        "passage_start": pa.int64(),
        "passage_end": pa.int64(),
        "num_passages": pa.int32(),
    }
    table = pa.table({name: pa.array([getattr(row, name) for row in rows], types[name]) for name in names})
    pyarrow.parquet.write_table(table, path)
