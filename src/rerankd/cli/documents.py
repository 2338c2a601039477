"""Documents for the command line: lines, JSONL, whole files, folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SourcedDocument:
    """A text, and where it was read: `file:line`, or the file."""

    source: str
    text: str


def read_documents(sources: Sequence[str], *, whole: bool) -> list[SourcedDocument]:
    """Reads every source, in order. Empty lines and empty files are left out.

    Raises:
        InvalidRequest: a source cannot be read, or there is no document at all.
    """
    documents = [document for source in sources for document in _read(source, whole) if document.text.strip()]
    if not documents:
        raise InvalidRequest(f"There are no documents in {', '.join(sources)}.")
    return documents


def _read(source: str, whole: bool) -> Iterator[SourcedDocument]:
    if source == "-":
        if sys.stdin.isatty():
            print("Reading documents from the terminal, one a line; end with Ctrl-D.", file=sys.stderr)
        yield from _split("stdin", sys.stdin.read(), whole, jsonl=False)
        return
    path = Path(source)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
                text = _text_of(file)
                if text is not None:
                    yield SourcedDocument(str(file), text)
        return
    text = _text_of(path)
    if text is None:
        raise InvalidRequest(f"{source} is not text in UTF-8.")
    yield from _split(source, text, whole, jsonl=path.suffix == ".jsonl")


def _text_of(path: Path) -> str | None:
    """None for what is not text."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return None if b"\0" in raw[:8192] else raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _split(source: str, text: str, whole: bool, jsonl: bool) -> Iterator[SourcedDocument]:
    if whole:
        yield SourcedDocument(source, text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{source}:{number}"
        yield SourcedDocument(place, _json_text(place, line) if jsonl and line.strip() else line.strip())


def _json_text(place: str, line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"{place} is not JSON: {error}.") from error
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InvalidRequest(f"{place} is neither a string nor an object with the string 'text'.")
    return text
