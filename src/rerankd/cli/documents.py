"""Reads documents from stdin, files and folders; `records.py` splits each text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rerankd.cli.records import FieldChoice, Format, SourcedDocument, documents_in, format_of, sniffed
from rerankd.errors import InvalidRequest
from rerankd.files.folders import LeftOut, Selection, files_in
from rerankd.files.text import NotText, bytes_of, text_of

STDIN = "stdin"
LIKE_JSON = re.compile(r'\s*(\{\s*"|\[\s*[\["{])')


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read.

    Attributes:
        format: of all sources; None: by suffix, and JSON is recognized.
        field_name: the field of a record that holds its text; None for the first known one.
        selection: which files of a folder are read.
    """

    format: Format | None = None
    field_name: str | None = None
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, slots=True)
class Found:
    """Documents in order, and notes about how they were read, one line each."""

    documents: list[SourcedDocument]
    notes: list[str] = field(default_factory=list)


def read_documents(sources: Sequence[str], reading: Reading) -> Found:
    """Reads every source, in order. Skips empty lines, records and files.

    Raises:
        InvalidRequest: a source cannot be read, or there is no document at all.
    """
    reader = _Reader(reading)
    documents = [document for source in sources for document in reader.read(source) if document.text.strip()]
    notes = reader.notes()
    if not documents:
        named = ", ".join(STDIN if source == "-" else source for source in sources)
        raise InvalidRequest(" ".join([f"There are no documents in {named}.", *(f"{note}." for note in notes)]))
    return Found(documents, notes)


class _Reader:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._choice = FieldChoice(reading.field_name)
        self._left_out = LeftOut()
        self._notes: list[str] = []

    def read(self, source: str) -> Iterator[SourcedDocument]:
        if source == "-":
            yield from self._split(STDIN, text_of(STDIN, _stdin()))
        elif (path := Path(source)).is_dir():
            yield from self._folder(path)
        else:
            yield from self._split(source, text_of(source, bytes_of(path)))

    def notes(self) -> list[str]:
        """Notes about skipped sources and automatically chosen fields."""
        taken = {name: count for name, count in self._choice.taken.items() if name != "text"}
        fields = ", ".join(f"{name!r} of {count:,} records" for name, count in taken.items())
        notes = [*self._notes, f"the text is the field {fields} (--field takes another)" if fields else ""]
        return [note for note in (*notes, str(self._left_out)) if note]

    def _folder(self, folder: Path) -> Iterator[SourcedDocument]:
        """One document per file, unless the caller named a format."""
        for path in files_in(folder, self._reading.selection, self._left_out):
            try:
                text = text_of(str(path), path.read_bytes())
            except NotText:
                self._left_out.add("not text", path)
            except OSError as error:
                self._left_out.add("unreadable", f"{path}: {error.strerror}")
            else:
                yield from documents_in(str(path), text, self._reading.format or "whole", self._choice)

    def _split(self, source: str, text: str) -> Iterator[SourcedDocument]:
        how = self._reading.format or format_of(source) or self._sniffed(source, text)
        yield from documents_in(source, text, how, self._choice)

    def _sniffed(self, source: str, text: str) -> Format:
        """JSON is never scored as plain text without a note."""
        if how := sniffed(text, self._choice):
            self._notes.append(f"{source} is read as {how.upper()} (--format lines takes its lines as they are)")
            return how
        if LIKE_JSON.match(text):
            self._notes.append(
                f"{source} looks like JSON, but is read as lines, braces included: name its --format, and the --field "
                "that holds the text"
            )
        elif self._choice.asked:
            raise InvalidRequest(f"--field needs records: name the --format of {source} (jsonl, json, csv or tsv).")
        return "lines"


def _stdin() -> bytes:
    if sys.stdin is None:
        return b""
    if sys.stdin.isatty():
        print("Reading documents from the terminal, one per line; end with Ctrl-D.", file=sys.stderr)
    return sys.stdin.buffer.read()
