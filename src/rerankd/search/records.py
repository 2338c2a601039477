"""The documents of a file of records, such as a corpus in JSONL: which ones an update of an index reads again.

An index keeps 8 bytes for each line or row of such a file, in their order: the digest of its document, or zeros. So a
file that grew costs its new documents only, and a million documents cost 8 MB.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path

from rerankd.errors import InvalidRequest
from rerankd.files.lines import Line
from rerankd.runs.lines import has_records, kind_of
from rerankd.runs.texts import Document, is_corpus, numbered_documents
from rerankd.search.parts import Part, parts_of

SIZE = 8
NONE = bytes(SIZE)


class Corpora:
    """Reads files of records, and counts what is damaged in them.

    Args:
        field: of the text in a record; None for the first known one.
        named: files that are a corpus even if they are tab-separated, because the caller names them.
    """

    def __init__(self, field: str | None = None, named: Container[Path] = ()) -> None:
        self.field = field
        self._named = named
        self._damaged: Counter[Path] = Counter()
        self._first: dict[Path, str] = {}

    def documents(self, path: Path) -> Iterator[Document] | None:
        """The documents of a file, one after the other; None for a file that is not a corpus.

        Damaged lines are passed over. So is what comes behind a place where the file cannot be read.
        """
        is_table = kind_of(path) == ".tsv" and path in self._named
        if not ((is_table or has_records(path)) and is_corpus(path, self.field)):
            return None
        return self._documents(path)

    def _documents(self, path: Path) -> Iterator[Document]:
        def damaged(error: InvalidRequest) -> None:
            self._damaged[path] += 1
            self._first.setdefault(path, str(error).rstrip("."))

        try:
            yield from numbered_documents(path, self.field, damaged)
        except InvalidRequest as error:
            damaged(error)

    def notes(self) -> Iterator[str]:
        """A sentence about each file with damaged records."""
        for path, count in self._damaged.items():
            yield f"left out: {count:,} damaged records of {path.name}, the first one: {self._first[path]}"


def parts_of_document(document: Document) -> Iterator[Part]:
    """A short document is one part, below its title; a long one has several, all with its number."""
    lines = (Line(document.number, line) for line in document.text.split("\n"))
    parts = list(parts_of(lines))
    if not parts and document.title:
        parts = [Part(document.number, document.number, document.title)]
    else:
        parts = [Part(one.first, one.last, one.text, document.title) for one in parts]
    yield from parts


class Digests:
    """What an index knew of each line or row of a file, and what it knows now."""

    def __init__(self, known: bytes = b"") -> None:
        self._known, self._now = known, bytearray()

    def is_new(self, document: Document) -> bool:
        """Whether the document differs from what stood there. Documents come in the order of their numbers."""
        self._now.extend(bytes(max(0, document.number * SIZE - len(self._now))))
        self._now += (digest := _digest(document))
        return digest != self._at(document.number)

    def was_there(self, number: int) -> bool:
        """Whether a document stood there before."""
        return self._at(number) not in (NONE, b"")

    def gone(self) -> Iterator[int]:
        """The numbers where a document stood and none stands now."""
        for start in range(0, len(self._known), SIZE):
            if self._known[start : start + SIZE] != NONE and self._now[start : start + SIZE] in (NONE, b""):
                yield start // SIZE

    def to_bytes(self) -> bytes:
        """What the next update gets as `known`."""
        return bytes(self._now)

    def _at(self, number: int) -> bytes:
        return self._known[number * SIZE : (number + 1) * SIZE]


def _digest(document: Document) -> bytes:
    parts = (document.doc_id, document.title, document.text)
    found = hashlib.blake2b(digest_size=SIZE)
    for one in parts:
        raw = one.encode(errors="replace")
        found.update(b"%d:%b" % (len(raw), raw))
    return found.digest()
