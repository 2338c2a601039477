"""Splits a text into passages of sentences, in any language. Knows no tokens.

Lengths are in bytes of UTF-8, because the length of a sentence in bytes differs little between scripts. Sentences end
at punctuation or a line break. A sentence that is too long ends at a space, or else at any character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_PASSAGE_BYTES = 2_000
MAX_SENTENCE_BYTES = 600
MIN_SENTENCE_BYTES = 24
"""A shorter sentence (a heading, an abbreviation) is joined to the next one."""

_END = re.compile(r"""[.!?؟۔…][.!?"'”’»)\]]{0,4}(?=\s)|[。！？｡][”’」』）]{0,4}|\n""")
_TO_LAST_SPACE = re.compile(r".*\s", re.DOTALL)


def passages(text: str) -> list[list[str]]:
    """The sentences of each passage, including white space. A blank text has no passages."""
    found: list[list[str]] = []
    room = 0
    for sentence in _sentences(text):
        size = len(sentence.encode())
        if size > room:
            found.append([])
            room = MAX_PASSAGE_BYTES
        found[-1].append(sentence)
        room -= size
    return found


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for end in [*(match.end() for match in _END.finditer(text)), len(text)]:
        if end == len(text) or not _is_short(text, start, end):
            yield from _parts(text, start, end)
            start = end


def _is_short(text: str, start: int, end: int) -> bool:
    return end - start < MIN_SENTENCE_BYTES and len(text[start:end].strip().encode()) < MIN_SENTENCE_BYTES


def _parts(text: str, start: int, end: int) -> Iterator[str]:
    """text[start:end] in parts of at most MAX_SENTENCE_BYTES, without blank parts."""
    while start < end:
        part = text[start : min(end, start + MAX_SENTENCE_BYTES)].encode()[:MAX_SENTENCE_BYTES].decode(errors="ignore")
        if start + len(part) < end and (to_space := _TO_LAST_SPACE.match(part)):
            part = to_space.group()
        if not part.isspace():
            yield part
        start += len(part)
