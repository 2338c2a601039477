"""Cuts a file's text into parts that are found and ranked by themselves. Knows lines, no language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PART_CHARS = 1200
"""About 300 tokens of English: a reranker reads it whole, and a reader sees it at a glance."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a file. first, last: their numbers, from 1."""

    first: int
    last: int
    text: str


def parts_of(text: str) -> Iterator[Part]:
    """Consecutive parts of at most PART_CHARS, that end at an empty line where one is near, else at a line's end.

    A longer line is cut; its parts have the same number.
    """
    held: list[str] = []
    first, size = 1, 0
    for number, line in enumerate(text.split("\n"), 1):
        for piece in _pieces(line):
            is_full = size + len(piece) > PART_CHARS
            is_paragraph_end = size > PART_CHARS // 2 and not piece.strip()
            if held and (is_full or is_paragraph_end):
                yield from _part(first, number - 1, held)
                held, first, size = [], number, 0
            held.append(piece)
            size += len(piece) + 1
    yield from _part(first, text.count("\n") + 1, held)


def _pieces(line: str) -> Iterator[str]:
    while len(line) > PART_CHARS:
        cut = line.rfind(" ", PART_CHARS // 2, PART_CHARS) + 1 or PART_CHARS
        yield line[:cut]
        line = line[cut:]
    yield line


def _part(first: int, last: int, lines: list[str]) -> Iterator[Part]:
    """The part without the empty lines at both ends, unless nothing is left."""
    while lines and not lines[0].strip():
        lines, first = lines[1:], first + 1
    while lines and not lines[-1].strip():
        lines, last = lines[:-1], last - 1
    if lines:
        yield Part(first, max(first, last), "\n".join(lines))
