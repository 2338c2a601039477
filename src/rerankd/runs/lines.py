"""Reads lines and records of files in the formats of retrieval research. Knows no field.

A compressed file is read as it stands: .gz, .bz2, .xz, and with pyarrow .zst and .lz4.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.surrogates import without_surrogates

COMPRESSED: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
WITH_PYARROW = (".zst", ".lz4")
STDIN = Path("-")

JSONL = (".jsonl", ".ndjson", ".jsonlines")
PARQUET = (".parquet", ".pq")

Fields = Mapping[str, Any]

Damaged = Callable[[InvalidRequest], None]
"""Gets the error of a line or record; raises it, or passes it over."""


def refuse(error: InvalidRequest) -> None:
    """Raises the error."""
    raise error from None


def kind_of(path: Path) -> str:
    """The suffix that says the format, in lower case, without that of the compression: `.jsonl` of `run.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in (*COMPRESSED, *WITH_PYARROW):
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def lines_of(path: Path, damaged: Damaged = refuse) -> Iterator[tuple[int, str]]:
    """The lines that hold more than white space, without their ends, each with its number from 1.

    Args:
        damaged: called with the error of a line that is not UTF-8, which is passed over if it returns.

    Raises:
        InvalidRequest: the file cannot be read, or a line is not UTF-8.
        MissingExtra: it is compressed in a way that needs pyarrow.
    """
    with _opened(path) as file:
        for number, raw in enumerate(_raw_lines(path, file), 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                damaged(InvalidRequest(f"{path}:{number} is not UTF-8 (at byte {error.start} of the line)."))
                continue
            if line.strip():
                yield number, line.rstrip("\r\n")


def _raw_lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    try:
        yield from file
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InvalidRequest(f"{path} cannot be read to its end: {error}") from None


def records_of(path: Path) -> Iterator[tuple[str, Fields]]:
    """The records of a JSONL or Parquet file, each with its place, `file:line` or `file:row`.

    Raises:
        InvalidRequest: as `lines_of`; or a line is no JSON object, or the file is not Parquet.
        MissingExtra: Parquet is not installed.
    """
    for number, record in numbered_records(path):
        yield f"{path}:{number}", record


def numbered_records(path: Path, damaged: Damaged = refuse) -> Iterator[tuple[int, Fields]]:
    """The same, each with the number of its line from 1, or of its row from 0.

    Args:
        damaged: see `lines_of`; also called for a line that is no JSON object.
    """
    if kind_of(path) in PARQUET:
        yield from _parquet_records(path)
        return
    for number, line in lines_of(path, damaged):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            damaged(InvalidRequest(f"{path}:{number} is not JSON: {error}."))
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            damaged(InvalidRequest(f"{path}:{number} is JSON, but not an object."))


def has_records(path: Path) -> bool:
    """Whether `records_of` reads the file, by its suffix."""
    return kind_of(path) in (*JSONL, *PARQUET)


def text_field(record: Fields, place: str, *names: str) -> str:
    """The first of these fields that a record has, without lone surrogates.

    Integers become strings: Parquet often keeps ids as numbers.

    Raises:
        InvalidRequest: it has none, or the value is neither a string nor an integer.
    """
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            return without_surrogates(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None:
            raise InvalidRequest(f"{place}: {name!r} must be a string; it is of type {type(value).__name__}.")
    raise InvalidRequest(f"{place} has no field {' or '.join(map(repr, names))}.")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        file = _open(path)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror or error}.") from None
    with file:
        yield file


def _open(path: Path) -> BinaryIO:
    if path == STDIN:
        return open(0, "rb", closefd=False)
    suffix = path.suffix.lower()
    if suffix in WITH_PYARROW:
        return _open_with_pyarrow(path, suffix)
    return cast(BinaryIO, COMPRESSED[suffix](path)) if suffix in COMPRESSED else path.open("rb")


def _open_with_pyarrow(path: Path, suffix: str) -> BinaryIO:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtra(f"A {suffix} file", error, "unpack the file, or compress it with gzip", "parquet") from None
    return io.BufferedReader(pa.input_stream(str(path), compression="detect"))


def _parquet_records(path: Path) -> Iterator[tuple[int, Fields]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", error, "convert the file to JSONL", "parquet") from None
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidRequest(f"{path} cannot be read as Parquet: {error}") from None
    with file:
        batches, row = file.iter_batches(batch_size=4096), 0
        while True:
            try:
                batch = next(batches, None)
            except (OSError, pa.ArrowException) as error:
                raise InvalidRequest(f"{path} cannot be read behind row {row}: {error}") from None
            if batch is None:
                return
            for record in batch.to_pylist():
                yield row, record
                row += 1
