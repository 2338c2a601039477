"""Cuts a text into passages at sentences, within a number of tokens. Knows no model, no query and no API.

A unit is a sentence with the white space after it. A sentence that is too long is cut after a line break, else after a
comma, else after white space, else between two characters as people see them (grapheme clusters). Passages are as
equal as whole units allow, so no short rest competes with full passages. Or each is full, so that a text which only
grows keeps its passages; then the last two are equal where the last one would be short.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, islice

from sentencex import get_sentence_boundaries

from rerankd.types import MIN_PASSAGE_TOKENS

LANGUAGE = "en"
"""Decides about abbreviations only: sentencex finds the sentences of every script."""

BLOCK_CHARS = 100_000
"""Characters in which sentences are looked for at a time: what is not read costs nothing."""

UNITS_AT_A_TIME, CHARS_AT_A_TIME = 256, 50_000
"""Counted together, before it is known whether more is read."""

MERGED_SHARE = 1.25
"""The tokens of all units together are fewer than this multiple of the tokens of their text."""

SHORT_SHARE = 0.25
"""A last passage with less new text than this share of a full one is short."""

Span = tuple[int, int]
"""Start and end of a part of a text, in code points."""

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""The tokens of each text."""


class Cutter:
    """The passages of one text.

    Args:
        max_tokens: of a passage, >= MIN_PASSAGE_TOKENS.
        overlap_tokens: the most tokens at the end of a passage that the next one repeats, in whole units.
        max_passages: the text after them is not read.
        full: each passage has as many units as fit, in place of an equal share of the text.
    """

    def __init__(
        self,
        text: str,
        count: CountTokens,
        max_tokens: int,
        overlap_tokens: int = 0,
        max_passages: int = 64,
        *,
        full: bool = False,
    ) -> None:
        self._text, self._count = text, count
        self._max_tokens, self._max_passages = max_tokens, max_passages
        self._overlap, self._full = min(overlap_tokens, max_tokens // 2), full
        self._units: list[Span] = []
        self._tokens: list[int] = []
        if len(text.encode()) <= max_tokens:  # hardly a token has less than a byte
            self._units, self._tokens = [(0, len(text))], [0]
        else:
            self._read()
        self._cuts = [(0, len(self._units))] if self._is_short() else self._plan()

    @property
    def spans(self) -> list[Span]:
        """In order. They cover the text up to the end of the last one."""
        return [(self._units[first][0], self._units[last - 1][1]) for first, last in self._cuts]

    def shrink(self, passages: Mapping[int, int]) -> None:
        """Plans again, because passages have more tokens than their units were thought to have.

        Args:
            passages: the place of each in `spans`, and its tokens, more than allowed.
        """
        for passage in sorted(passages, reverse=True):
            (first, last), tokens = self._cuts[passage], passages[passage]
            if last - first > 1:
                self._tokens[last - 1] += max(0, tokens - sum(self._tokens[first:last]))
            else:
                self._halve(first, tokens)
        self._cuts = self._plan()

    def _halve(self, unit: int, tokens: int) -> None:
        start, end = self._units[unit]
        if end - start > 1:
            middle = _place(self._text, start, start + (end - start + 1) // 2)
            self._units[unit : unit + 1] = [(start, middle), (middle, end)]
            self._tokens[unit : unit + 1] = [(tokens + 1) // 2] * 2

    def _read(self) -> None:
        """Counts the units, until there are more tokens than the passages may have."""
        enough = self._max_passages * self._max_tokens * MERGED_SHARE
        units, counted, total = sentences(self._text), 0, 0
        while total <= enough and (some := _next(units)):
            counts, counted = self._counts(some, counted)
            total += sum(counts)
            for unit, tokens in zip(some, counts, strict=True):
                self._add(unit, tokens)

    def _counts(self, units: Sequence[Span], counted: int) -> tuple[Sequence[int], int]:
        """The tokens of each unit, with the spaces before and the line breaks behind it, as most tokenizers have them;
        and what is counted."""
        ends = [start + len(self._text[start:end].rstrip(" ")) for start, end in units]
        if units[-1][1] == len(self._text):
            ends[-1] = len(self._text)
        starts = [counted, *ends[:-1]]
        return self._count([self._text[start:end] for start, end in zip(starts, ends, strict=True)]), ends[-1]

    def _add(self, unit: Span, tokens: int, kind: int = 0) -> None:
        """A unit that fits, or its pieces: cut at the best kind of place that it has, and these at the next kind."""
        if tokens <= self._max_tokens:
            self._units.append(unit)
            self._tokens.append(tokens)
            return
        for number, places in enumerate(PLACES[kind:], kind):
            pieces = list(_cut(self._text, *unit, places))
            if len(pieces) > 1:
                for piece, count in zip(pieces, self._counts(pieces, unit[0])[0], strict=True):
                    self._add(piece, count, number + 1)
                return
        pieces = list(_pieces(self._text, *unit, max(self._max_tokens // 4, MIN_PASSAGE_TOKENS)))
        self._units += pieces
        self._tokens += self._counts(pieces, unit[0])[0]

    def _is_short(self) -> bool:
        """Whether the whole text is one passage."""
        if self._units[-1][1] < len(self._text):
            return False
        total = sum(self._tokens)
        if total <= self._max_tokens:
            return True
        return total <= MERGED_SHARE * self._max_tokens and self._count([self._text])[0] <= self._max_tokens

    def _plan(self) -> list[tuple[int, int]]:
        """The first unit of each passage, and the first one after it."""
        sums = [0, *accumulate(self._tokens)]
        cuts: list[tuple[int, int]] = []
        first = last = 0
        while last < len(self._units) and len(cuts) < self._max_passages:
            first = self._first(sums, first, last)
            last = self._last(sums, first, last)
            cuts.append((first, last))
        return cuts

    def _first(self, sums: Sequence[int], first: int, last: int) -> int:
        """Where the passage after units first:last begins: in these, as far as the next unit fits, too."""
        start = last
        while self._overlap and start > first + 1 and sums[last] - sums[start - 1] <= self._overlap:
            start -= 1
        while start < last and sums[last + 1] - sums[start] > self._max_tokens:
            start += 1
        return start

    def _last(self, sums: Sequence[int], first: int, done: int) -> int:
        """The end of the passage that begins at a unit: its share of the rest, with a unit after `done`."""
        wanted = self._wanted(sums[-1] - sums[first])
        last = done + 1
        while last < len(self._units) and sums[last] - sums[first] < wanted:
            if sums[last + 1] - sums[first] > self._max_tokens:
                break
            last += 1
        return last

    def _wanted(self, left: int) -> float:
        """The tokens of the next passage. left: tokens of the text from its beginning on."""
        num = 1 + math.ceil(max(0, left - self._max_tokens) / (self._max_tokens - self._overlap))
        if self._full and (num > 2 or left - self._max_tokens >= SHORT_SHARE * self._max_tokens):
            return self._max_tokens
        return (left + (num - 1) * self._overlap) / num


def _next(units: Iterator[Span]) -> list[Span]:
    """Some more units; none at the end."""
    some: list[Span] = []
    for unit in islice(units, UNITS_AT_A_TIME):
        some.append(unit)
        if unit[1] - some[0][0] >= CHARS_AT_A_TIME:
            break
    return some


def sentences(text: str) -> Iterator[Span]:
    """The sentences, with the white space after them. They cover the text."""
    start = 0
    while start < len(text):
        block = text[start : start + BLOCK_CHARS]
        ends = _ends(block)
        if start + len(block) < len(text) and len(ends) > 1:
            ends.pop()  # it may go on in the next block
        begin = 0
        for end in ends:
            yield start + begin, start + end
            begin = end
        start += begin


def _ends(block: str) -> list[int]:
    """The ends of its sentences, each the start of the next one."""
    ends: list[int] = []
    for boundary in get_sentence_boundaries(LANGUAGE, block)[1:]:
        at = boundary["start_index"]
        if _is_in_a_name(block, at):
            continue
        while at < len(block) and (block[at].isspace() or _joined(block, at)):
            at += 1
        if (ends[-1] if ends else 0) < at < len(block):
            ends.append(at)
    return [*ends, len(block)]


def _is_in_a_name(text: str, at: int) -> bool:
    """Whether a place is behind the full stop of a name such as `decimal.ROUND_UP` (UAX #29, rule SB7)."""
    return 1 < at < len(text) and text[at - 1] == "." and text[at].isupper() and text[at - 2].isalpha()


PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:\r\n|[\n\r\x85\u2028\u2029])\s*",
        r"[,;:](?:\s+|(?=[\u2e80-\u9fff\uac00-\ud7af]))|[、，；：،؛፣]\s*",
        r"\s+",
    )
)
"""After what a long sentence is cut, the best first."""


def _cut(text: str, start: int, end: int, places: re.Pattern[str]) -> Iterator[Span]:
    """The parts of text[start:end] that end at places of a kind."""
    for found in places.finditer(text, start, end):
        if found.end() < end and not _joined(text, found.end()):
            yield start, found.end()
            start = found.end()
    yield start, end


def _pieces(text: str, start: int, end: int, max_chars: int) -> Iterator[Span]:
    while end - start > max_chars:
        place = _place(text, start, start + max_chars)
        yield start, place
        start = place
    yield start, end


def _place(text: str, start: int, stop: int) -> int:
    """The best place to cut in the second half of text[start:stop]."""
    middle = start + (stop - start) // 2
    for pattern in PLACES:
        places = [middle + found.end() for found in pattern.finditer(text[middle:stop])]
        for place in reversed(places):
            if not _joined(text, place):
                return place
    place = stop
    while place > middle and _joined(text, place):
        place -= 1
    return place if place > start else stop


JOINER = "\u200d"
PREPENDED = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
THAI_AND_LAO_AM = frozenset("\u0e33\u0eb3")
VIRAMA = 9
"""Its class of combination."""


def _joined(text: str, at: int) -> bool:
    """Whether the characters around a place look like one; also where only some of Unicode's versions say so."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return (before, after) == ("\r", "\n") or before in PREPENDED
    if unicodedata.category(after)[0] == "M" or after in THAI_AND_LAO_AM or after in (JOINER, "\u200c"):
        return True
    if before == JOINER or before in PREPENDED or unicodedata.combining(before) == VIRAMA:
        return True
    return _is_emoji_tail(after) or _is_syllable(before, after) or _is_flag(text, at)


def _is_emoji_tail(character: str) -> bool:
    """A skin tone, or a tag as in the flag of Wales."""
    return "\U0001f3fb" <= character <= "\U0001f3ff" or "\U000e0020" <= character <= "\U000e007f"


def _is_syllable(before: str, after: str) -> bool:
    """Two letters of one Korean syllable."""
    begins = "\u1100" <= before <= "\u11ff" or "\ua960" <= before <= "\ua97c"
    goes_on = begins or "\uac00" <= before <= "\ud7fb"
    if "\u1160" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7fb":
        return goes_on
    return begins and ("\u1100" <= after <= "\u115f" or "\ua960" <= after <= "\ua97c" or "\uac00" <= after <= "\ud7a3")


def _is_flag(text: str, at: int) -> bool:
    """The second of two regional indicators."""
    first = at
    while first and "\U0001f1e6" <= text[first - 1] <= "\U0001f1ff":
        first -= 1
    return "\U0001f1e6" <= text[at] <= "\U0001f1ff" and (at - first) % 2 == 1
