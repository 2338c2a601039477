"""A part of a file that was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """A part of a file that was found.

    Attributes:
        path: of the file, below the folder that was searched, with `/`.
        first, last: its lines, from 1; pages of a PDF file or a presentation; the line or row of a record.
        text: as it is in the file; in HTML, PDF and Office files what a reader sees.
        score: of the stage that found it; greater is better.
        heading: the headings above the part, outermost first, joined by ` > `; the title of a record.
        id: of its record; empty in a file without records.
    """

    path: str
    first: int
    last: int
    text: str
    score: float
    heading: str = ""
    id: str = ""

    @property
    def source(self) -> str:
        """`file:12-30`, or `file:12 (id)` of a record."""
        if self.id:
            return f"{self.path}:{self.first} ({self.id})"
        return f"{self.path}:{self.first}" if self.first == self.last else f"{self.path}:{self.first}-{self.last}"

    @property
    def whole(self) -> str:
        """What it is a part of: a name for its record, or its file."""
        return f"{self.path}:{self.first}" if self.id else self.path

    @property
    def document(self) -> str:
        """The text below its headings: what a reranker reads."""
        return document_of(self.heading, self.text)


def document_of(heading: str, text: str) -> str:
    """A part's text below its headings."""
    return f"{heading}\n{text}" if heading else text
