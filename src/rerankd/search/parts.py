"""Cuts a file's lines into parts that are found and ranked by themselves. Knows lines, no language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rerankd.files.html import letters_in
from rerankd.files.lines import Line

PART_CHARS = 1200
"""About 300 tokens of English: a reranker reads it whole, and a reader sees it at a glance."""

MIN_SECTION_CHARS = PART_CHARS // 6
"""A heading begins a part, unless the part before it would be shorter."""

MIN_LIST_LINES, LIST_SHARE = 3, 2 / 3
"""A list of links, such as a table of contents, has at least this many lines, and this share of letters in links."""

SEPARATOR = " > "
"""Separates a heading from the heading below it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a file.

    Attributes:
        first, last: their numbers, as in the file.
        heading: the headings above them, outermost first.
    """

    first: int
    last: int
    text: str
    heading: str = ""


def parts_of(lines: Iterable[Line]) -> Iterator[Part]:
    """Consecutive parts of at most PART_CHARS. A longer line is cut; its parts have the same number.

    They end before a heading, at a form feed or at an empty line where one is near, else at a line's end. A list of
    links is not a part: it has the words of other pages, and no answer.
    """
    held: list[Line] = []
    above, size = _Headings(), 0
    for line in lines:
        for piece in _pieces(line):
            if held and _ends(size, piece):
                yield from _part(held, above)
                held, size = [], 0
            held.append(piece)
            size += len(piece.text) + 1
    yield from _part(held, above)


def _ends(size: int, piece: Line) -> bool:
    """Whether a part of this size ends before this line."""
    is_full = size + len(piece.text) > PART_CHARS
    is_section_end = size > MIN_SECTION_CHARS and piece.level > 0
    return (
        is_full or is_section_end or piece.text.startswith("\f") or (size > PART_CHARS // 2 and not piece.text.strip())
    )


def _pieces(line: Line) -> Iterator[Line]:
    text = line.text
    while len(text) > PART_CHARS:
        cut = text.rfind(" ", PART_CHARS // 2, PART_CHARS) + 1 or PART_CHARS
        yield line._replace(text=text[:cut])
        text = text[cut:]
    yield line._replace(text=text)


class _Headings:
    """The headings in force, outermost first."""

    def __init__(self) -> None:
        self._stack: list[Line] = []

    def take(self, line: Line) -> None:
        if line.level:
            self._stack = [one for one in self._stack if one.level < line.level]
            self._stack.append(line)

    def above(self, line: Line) -> str:
        """Those that hold for a line; a heading is not above itself."""
        level = line.level or 7
        return SEPARATOR.join(one.text.strip(" #") for one in self._stack if one.level < level)


def _part(lines: Sequence[Line], above: _Headings) -> Iterator[Part]:
    """The part without the empty lines at both ends, unless nothing is left."""
    full = [place for place, line in enumerate(lines) if line.text.strip()]
    if full and not _is_list_of_links([lines[place] for place in full]):
        kept = lines[full[0] : full[-1] + 1]
        heading = above.above(kept[0])
        yield Part(kept[0].number, kept[-1].number, "\n".join(line.text for line in kept), heading)
    for line in lines:
        above.take(line)


def _is_list_of_links(lines: Sequence[Line]) -> bool:
    letters = sum(letters_in(line.text) for line in lines)
    return len(lines) >= MIN_LIST_LINES and sum(line.linked for line in lines) > LIST_SHARE * letters
