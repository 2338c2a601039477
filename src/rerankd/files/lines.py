"""A file → the lines of its text, with their numbers and headings. Knows which reader a suffix has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rerankd.files import documents, html
from rerankd.files.text import bytes_of, text_of

HTML = {".html", ".htm", ".xhtml"}
MARKDOWN = {".md", ".markdown"}

HEADING = re.compile(r"(#{1,6})\s+\S")
FENCE = re.compile(r"\s*(```|~~~)")


class Line(NamedTuple):
    """A line of a text.

    Attributes:
        number: from 1; in a PDF file or a presentation the number of the page.
        level: of a heading, from 1; 0 for any other line.
        linked: how many of its letters and digits are links to other places.
    """

    number: int
    text: str
    level: int = 0
    linked: int = 0


def lines_of(path: Path) -> list[Line]:
    """The lines of a file; gzip is unpacked.

    Raises:
        NotText: it is not text, and has no converter.
        InvalidRequest: it cannot be read.
        MissingExtra: its converter is not installed.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in documents.SUFFIXES:
        return [Line(*one) for one in documents.lines_of(path)]
    text = text_of(str(path), bytes_of(path))
    if suffix in HTML:
        return [Line(*one) for one in html.lines_of(text)]
    return list(_markdown(text) if suffix in MARKDOWN else _plain(text))


def _plain(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.split("\n"), 1):
        yield Line(number, line)


def _markdown(text: str) -> Iterator[Line]:
    is_code = False
    for number, line in enumerate(text.split("\n"), 1):
        is_code ^= bool(FENCE.match(line))
        found = None if is_code else HEADING.match(line)
        yield Line(number, line, len(found[1]) if found else 0)
