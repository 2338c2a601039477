"""Splits a text into documents: lines, JSONL, JSON, CSV, TSV, or the whole text. Reads no file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal, get_args

from rerankd.errors import InvalidRequest

Format = Literal["lines", "jsonl", "json", "csv", "tsv", "whole"]
FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}

FIELDS = ("text", "content", "document", "body", "passage", "page_content", "contents", "chunk", "answer", "abstract")
"""Fields that may hold a record's text, in this order, unless the caller names one."""

MAX_CELL = 2**31 - 1
"""Characters of one cell; the csv module's default limit is 131,072."""


@dataclass(frozen=True, slots=True)
class SourcedDocument:
    """A text and its source.

    Attributes:
        source: `file:line`, or the file.
        record: the other fields of its record.
    """

    source: str
    text: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class FieldChoice:
    """The field of a record with its text.

    Attributes:
        asked: the field that the caller named; None for the first of FIELDS.
        taken: fields that were chosen automatically, with the number of records.
    """

    asked: str | None = None
    taken: dict[str, int] = field(default_factory=dict)

    def of(self, place: str, record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The text of a record, and its other fields.

        Raises:
            InvalidRequest: the field is missing or is not a string.
        """
        name = self.asked or self.found_in(record)
        if name is None:
            raise InvalidRequest(
                f"{place} has none of the fields {', '.join(FIELDS)}: name one with --field, it has {_names(record)}."
            )
        text = _value(record, name)
        if text is None and self.asked:
            raise InvalidRequest(f"{place} has no field {name!r}: it has {_names(record)}.")
        if not isinstance(text, str):
            raise InvalidRequest(f"{place}: the field {name!r} is not a string, but {_shown(text)}.")
        if not self.asked:
            self.taken[name] = self.taken.get(name, 0) + 1
        return text, {key: value for key, value in record.items() if key != name}

    def is_in(self, record: Mapping[str, Any]) -> bool:
        """Whether a record has the named field, or else one of FIELDS."""
        if self.asked:
            return _value(record, self.asked) is not None
        return any(isinstance(value, str) and name.lower() in FIELDS for name, value in record.items())

    def found_in(self, record: Mapping[str, Any]) -> str | None:
        """The field to read if the caller named none."""
        strings = [str(name) for name, value in record.items() if isinstance(value, str) and name.lower() != "id"]
        for known in FIELDS:
            if named := [name for name in strings if name.lower() == known]:
                return named[0]
        return strings[0] if len(strings) == 1 else None


def format_of(name: str) -> Format | None:
    """The format by suffix, ignoring case and `.gz`; None for an unknown suffix."""
    path = PurePath(name)
    return SUFFIXES.get((path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower())


def sniffed(text: str, choice: FieldChoice) -> Format | None:
    """`jsonl` or `json` if the text begins with a JSON object that has a text field, or is a JSON list."""
    first = text.lstrip()[:1]
    if first not in ("{", "["):
        return None
    line = next(line for line in text.split("\n") if line.strip())
    value = _json_or_none(line)
    if isinstance(value, dict):
        if _opened(value, choice)[1] is not None:
            return "json"
        return "jsonl" if _is_readable(value, choice) else None
    try:
        record = next(_json_values("", text), (0, None))[1]
    except InvalidRequest:
        return None
    if isinstance(record, list):  # a line such as "[1] a footnote" is none
        return "json" if record and all(_is_readable(item, choice) for item in record) else None
    return "json" if _is_readable(record, choice) or _opened(record, choice)[1] is not None else None


def documents_in(source: str, text: str, how: Format, choice: FieldChoice) -> Iterator[SourcedDocument]:
    """Every document of a text, empty ones included.

    Raises:
        InvalidRequest: a record cannot be read; the message names its place.
    """
    yield from _READERS[how](source, text, choice)


def _whole(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    yield SourcedDocument(source, text)


def _lines(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    for number, line in enumerate(text.split("\n"), 1):
        yield SourcedDocument(f"{source}:{number}", line.strip())


def _jsonl(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{source}:{number}"
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidRequest(
                    f"{place} is not JSON: {_reason(error)}. (--format lines reads it as text.)"
                ) from None
            yield _document(place, value, choice)


def _json(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    """One or more JSON values; each item of a list is a document."""
    for number, value in _json_values(source, text):
        name, items = _opened(value, choice)
        if items is not None:
            for index, item in enumerate(items):
                yield _document(f"{source}{name}[{index}]", item, choice)
        else:
            yield _document(f"{source}:{number}", value, choice)


def _json_values(source: str, text: str) -> Iterator[tuple[int, Any]]:
    """Each value with the number of its first line."""
    decoder, position, number, counted = json.JSONDecoder(), 0, 1, 0
    while position < len(text):
        if text[position] in " \t\r\n":
            position += 1
            continue
        number += text.count("\n", counted, position)
        counted = position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"{source}:{number} is not JSON: {_reason(error)}.") from None
        yield number, value


def _csv(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    try:
        yield from _records(source, list(_rows(text, _delimiter(text))), choice)
    except csv.Error as error:
        raise InvalidRequest(f"{source} is not CSV: {error}.") from None


def _tsv(source: str, text: str, choice: FieldChoice) -> Iterator[SourcedDocument]:
    """Quotes are read as in CSV, or literally if that fails."""
    try:
        rows = list(_rows(text, "\t"))
    except csv.Error:
        rows = list(_rows(text, "\t", csv.QUOTE_NONE))
    yield from _records(source, rows, choice)


def _rows(text: str, delimiter: str, quoting: int = csv.QUOTE_MINIMAL) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the number of its first line."""
    csv.field_size_limit(MAX_CELL)
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    while True:
        number = rows.line_num + 1
        row = next(rows, None)
        if row is None:
            return
        if any(row):
            yield number, row


def _delimiter(text: str) -> str:
    """Spreadsheets write semicolons in locales with decimal commas."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    return "," if "," in header else max(";\t|", key=header.count) if any(map(header.count, ";\t|")) else ","


def _records(source: str, rows: list[tuple[int, list[str]]], choice: FieldChoice) -> Iterator[SourcedDocument]:
    for number, row in rows[1:]:
        yield _document(f"{source}:{number}", _record(rows[0][1], row), choice)


def _record(header: Iterable[str], row: list[str]) -> dict[str, str]:
    """Cells by header; a missing cell is empty, an extra one is named by its number."""
    names = list(header)
    names += [f"column {number}" for number in range(len(names) + 1, len(row) + 1)]
    return dict(zip(names, [*row, *[""] * (len(names) - len(row))], strict=True))


def _document(place: str, value: Any, choice: FieldChoice) -> SourcedDocument:
    if isinstance(value, str):
        return SourcedDocument(place, value)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{place} is neither a string nor an object with a text field, but {_shown(value)}.")
    return SourcedDocument(place, *choice.of(place, value))


def _value(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field, or of a nested one, `outer.inner`."""
    if name in record or "." not in name:
        return record.get(name)
    outer, _, inner = name.partition(".")
    nested = record.get(outer)
    return _value(nested, inner) if isinstance(nested, Mapping) else None


def _opened(value: Any, choice: FieldChoice) -> tuple[str, list[Any] | None]:
    """A list itself, or the only list in an object without a text field, with its name: `.data`."""
    if isinstance(value, list):
        return "", value
    if not isinstance(value, dict) or choice.is_in(value):
        return "", None
    lists = [(f".{name}", items) for name, items in value.items() if _is_list_of_records(items)]
    return lists[0] if len(lists) == 1 else ("", None)


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str | dict) for item in value)


def _is_readable(value: Any, choice: FieldChoice) -> bool:
    if not isinstance(value, dict):
        return isinstance(value, str)
    return isinstance(_value(value, choice.asked), str) if choice.asked else choice.found_in(value) is not None


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _names(record: Mapping[str, Any]) -> str:
    names = [str(name) for name in record]
    return (", ".join(names[:12]) + (", …" if len(names) > 12 else "")) or "none"


def _shown(value: Any) -> str:
    try:
        shown = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "nested too deeply"
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


_READERS: Mapping[Format, Callable[[str, str, FieldChoice], Iterator[SourcedDocument]]] = {
    "lines": _lines,
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "whole": _whole,
}
