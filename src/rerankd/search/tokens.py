"""Text → search tokens, for any language without a dictionary.

Words are runs of letters and digits in one script. Scripts that put no spaces between words are read as overlapping
pairs: of characters in Chinese, Japanese and Korean (as Lucene's CJKBigramFilter does), of letters with their marks in
Thai, Lao, Khmer, Myanmar and Tibetan. Compatibility forms and case are folded, Arabic vowel marks and tatweel dropped.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby, pairwise

VERSION = 1
"""Part of an index: another version builds a new one, since query and document need the same tokens."""

MAX_TOKEN_CHARS = 80
"""Longer runs are not words: keys, hashes, encoded pictures."""

TATWEEL = "\u0640"

# The first code point of each range, and the kind of script that begins there.
_RANGES = (
    (0x0000, "spaced"),
    (0x0E00, "clusters"),  # Thai, Lao
    (0x0F00, "clusters"),  # Tibetan
    (0x1000, "clusters"),  # Myanmar
    (0x10A0, "spaced"),
    (0x1100, "characters"),  # Hangul Jamo
    (0x1200, "spaced"),
    (0x1780, "clusters"),  # Khmer
    (0x1800, "spaced"),
    (0x19E0, "clusters"),  # Khmer symbols
    (0x1A00, "spaced"),
    (0x2E80, "characters"),  # CJK radicals, Kana, ideographs, Yi
    (0xA4D0, "spaced"),
    (0xA9E0, "clusters"),  # Myanmar extended
    (0xAA00, "spaced"),
    (0xAA60, "clusters"),
    (0xAA80, "spaced"),
    (0xAC00, "characters"),  # Hangul
    (0xD7FC, "spaced"),
    (0xF900, "characters"),
    (0xFB00, "spaced"),
    (0x1AFF0, "characters"),  # Kana extended
    (0x1B170, "spaced"),
    (0x20000, "characters"),
    (0x323B0, "spaced"),
)
_STARTS = [start for start, _ in _RANGES]


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, in order; a token contains no white space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return [token for kind, run in _runs(folded) for token in _tokens(kind, run)]


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Runs of letters, digits and marks, each of one kind of script."""
    for kind, characters in groupby(filter(_is_kept, text), key=_kind):
        if kind:
            yield kind, "".join(characters)


def _is_kept(character: str) -> bool:
    """Arabic vowel marks and tatweel are left out, so that they do not break a word."""
    return character != TATWEEL and not ("\u064b" <= character <= "\u065f" or character == "\u0670")


def _kind(character: str) -> str:
    """The kind of a script; empty for what is in no word."""
    if not (character.isalnum() or unicodedata.category(character)[0] == "M"):
        return ""
    return _RANGES[bisect_right(_STARTS, ord(character)) - 1][1]


def _tokens(kind: str, run: str) -> Iterator[str]:
    if kind == "spaced":
        if len(run) <= MAX_TOKEN_CHARS:
            yield run
        return
    parts = list(run) if kind == "characters" else list(_clusters(run))
    if len(parts) == 1:
        yield parts[0]
    for one, other in pairwise(parts):
        yield one + other


def _clusters(run: str) -> Iterator[str]:
    """Letters with the marks that follow them."""
    cluster = ""
    for character in run:
        if cluster and unicodedata.category(character)[0] != "M":
            yield cluster
            cluster = ""
        cluster += character
    yield cluster
