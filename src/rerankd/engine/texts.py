"""Counts and shortens texts by a checkpoint's own tokens. Knows no template and no tensor."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tokenizers import Encoding, Tokenizer

from rerankd.types import Cut

# No token of Qwen's vocabulary is longer, so a text of n × this many characters has at least n tokens and what
# lies beyond can stay unread: the time to tokenise is bounded by the limits, not by the caller.
MAX_TOKEN_CHARS = 128

ENCODED_AT_A_TIME = 64

Side = Literal["left", "right"]
"""The end of a text that is cut off."""


@dataclass(frozen=True, slots=True)
class CountedText:
    """A text, shortened or not, and its number of tokens now and before.

    at_least: the original was longer than what was counted.
    """

    part: Literal["query", "document"]
    text: str
    tokens: int
    original_tokens: int
    at_least: bool = False

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """One Cut if anything was lost, else none."""
        if self.tokens == self.original_tokens and not self.at_least:
            return ()
        return (Cut(self.part, self.original_tokens, self.tokens, self.at_least),)


class TextCounter:
    """Counts with one tokenizer, special tokens left out. Safe to call from several threads.

    Args:
        tokenizer: with neither padding nor truncation switched on.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Tokens of a bare text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def cut_all(
        self,
        part: Literal["query", "document"],
        texts: Iterable[str],
        limit: int | None,
        read_tokens: int,
        side: Side = "right",
    ) -> dict[str, CountedText]:
        """Counts each distinct text once, and shortens it to `limit` tokens where there is a limit.

        Args:
            read_tokens: how far a text is read where there is no limit, however long it is.
            side: the end that is cut off.
        """
        counted = {}
        originals = list(dict.fromkeys(texts))
        readable = [readable_part(text, limit or read_tokens, side) for text in originals]
        for original, text, encoding in zip(originals, readable, self._encodings(readable), strict=True):
            tokens = len(encoding.ids)
            whole = CountedText(part, text, tokens, tokens, at_least=len(text) < len(original))
            over = limit is not None and tokens > limit
            counted[original] = self._part(whole, limit or 0, encoding.offsets, side) if over else whole
        return counted

    def token_ids(self, texts: Sequence[str]) -> Iterator[array[int]]:
        """The ids of each text."""
        for encoding in self._encodings(texts):
            yield array("i", encoding.ids)

    def _encodings(self, texts: Sequence[str]) -> Iterator[Encoding]:
        """Some at a time: an encoding takes a hundred times the memory of its text."""
        for first in range(0, len(texts), ENCODED_AT_A_TIME):
            some = list(texts[first : first + ENCODED_AT_A_TIME])
            yield from self._tokenizer.encode_batch(some, add_special_tokens=False)

    def shorten(self, text: CountedText, limit: int, side: Side = "right") -> CountedText:
        """The longest part that is cut off between two characters and has at most `limit` tokens."""
        if text.tokens <= limit:
            return text
        return self._part(text, limit, self._tokenizer.encode(text.text, add_special_tokens=False).offsets, side)

    def _part(self, text: CountedText, limit: int, offsets: Sequence[tuple[int, int]], side: Side) -> CountedText:
        for kept in range(limit, 0, -1):
            part = text.text[: offsets[kept][0]] if side == "right" else text.text[offsets[-kept][0] :]
            # A shorter text may split the word at its end into other tokens: count again.
            if (tokens := self.count(part)) <= limit:
                return replace(text, text=part, tokens=tokens)
        return replace(text, text="", tokens=0)


def readable_part(text: str, tokens: int, side: Side = "right") -> str:
    """The head, or the tail, of a text that is sure to hold more than so many tokens, if the text does."""
    chars = (tokens + 1) * MAX_TOKEN_CHARS
    return text[:chars] if side == "right" else text[-chars:]
