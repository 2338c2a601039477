"""The tokens of texts, by a checkpoint's own tokenizer: counts, shortens, and reads them. Knows no template, no tensor.

Two ways are several times as fast as the tokenizer. Qwen's tokenizer splits a text into words from left to right
(`prompt.QWEN_SPLIT`), and BPE reads each word alone:

- A text in Latin script has the tokens of its words, and most words of a text were read before (`WordTokens`).
- A document is counted as it is, and stands behind a space in the prompt. From the first place on where both texts
  begin a word, they have the same tokens: only the beginning is read again (`behind_space`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, tee
from typing import Literal

from tokenizers import Encoding, Tokenizer

from rerankd.engine.tokenising import encodings
from rerankd.types import Truncation

# No token of Qwen's vocabulary is longer, so a text of n × this many characters has at least n tokens, and the rest
# can stay unread: the limits bound the time to tokenise, not the caller.
MAX_TOKEN_CHARS = 128

USUAL_TOKEN_CHARS = 16
"""Few texts have longer tokens on average: this much of a text is read first, and more only if it is too little."""

READ_AT_LEAST = 4096
"""Characters of a text that are always read, so that the tokens of a short text are counted exactly."""

MAX_CHARS = 16_384
"""The longest text that is read word by word: splitting it holds Python's lock for half a millisecond."""

MAX_WORDS = 65_536
"""Words kept, some 15 MB; then all are forgotten."""

MAX_WORD_CHARS = 32
"""Longer words are read by the tokenizer each time."""

HEAD_CHARS = 32
"""Characters of a text behind a space that are read again; few texts begin with a longer word."""

Side = Literal["left", "right"]
"""The end of a text that is removed."""

_LETTER = "A-Za-zªµºÀ-ÖØ-öø-ɏ"
_NUMBER = "0-9²³¹¼½¾"
_SPACE = "\t-\r \x85\xa0"

READ = re.compile("[\x00-žƀ-ɏ‐-‧€]*")
"""Latin letters up to Latin Extended-B, and general punctuation. The long s is left out: it is an s for `'s`."""

SPLIT = re.compile(
    r"'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
    f"|[^\r\n{_LETTER}{_NUMBER}]?[{_LETTER}]+|[{_NUMBER}]"
    f"| ?[^{_SPACE}{_LETTER}{_NUMBER}]+[\r\n]*|[{_SPACE}]*[\r\n]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+"
)


def at_most(tokens: int, limit: int | None) -> int:
    """The tokens, or the limit where there is one and it is smaller."""
    return tokens if limit is None else min(tokens, limit)


@dataclass(frozen=True, slots=True)
class CountedText:
    """A text, shortened or not, and its number of tokens now and before.

    at_least: only a part of the original was counted.
    ids: the tokens of the text, where they were kept.
    """

    part: Literal["query", "document"]
    text: str
    tokens: int
    original_tokens: int
    at_least: bool = False
    ids: array[int] | None = field(default=None, compare=False, repr=False)

    @property
    def truncations(self) -> tuple[Truncation, ...]:
        """One if anything was lost, else none."""
        if self.tokens == self.original_tokens and not self.at_least:
            return ()
        return (Truncation(self.part, self.original_tokens, self.tokens, self.at_least),)


class TextCounter:
    """Counts with one tokenizer, special tokens left out. Safe to call from several threads.

    Args:
        tokenizer: with neither padding nor truncation switched on.
        words: the same tokenizer, read word by word, if it can be.
    """

    def __init__(self, tokenizer: Tokenizer, words: WordTokens | None = None) -> None:
        self._tokenizer, self._words = tokenizer, words

    def count(self, text: str) -> int:
        """Tokens of a bare text."""
        [ids] = self.token_ids([text])
        return len(ids)

    def lens(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each bare text."""
        return [len(ids) for ids in self.token_ids(texts)]

    def truncate_all(
        self,
        part: Literal["query", "document"],
        texts: Iterable[str],
        limit: int | None,
        read_tokens: int,
        side: Side = "right",
    ) -> dict[str, CountedText]:
        """Counts each distinct text once, and shortens it to `limit` tokens where there is a limit.

        Args:
            read_tokens: how far a text is read, whatever the limit.
            side: the end that is removed.
        """
        return dict(self.truncate_each(part, dict.fromkeys(texts), limit, read_tokens, side))

    def truncate_each(
        self,
        part: Literal["query", "document"],
        texts: Iterable[str],
        limit: int | None,
        read_tokens: int,
        side: Side = "right",
    ) -> Iterator[tuple[str, CountedText]]:
        """The same, one by one and lazily: a caller that stops early leaves the rest unread."""
        bound = read_tokens if limit is None else min(limit, read_tokens)
        for reading, group in groupby(texts, lambda text: self._reading(text, bound)):
            if reading == "places":
                yield from self._truncate(part, group, limit, bound, side)
                continue
            kept, given = tee(group)
            for text, ids in zip(kept, self._ids(given, reading), strict=True):
                if len(ids) <= bound:
                    yield text, CountedText(part, text, len(ids), len(ids), ids=ids)
                else:
                    yield from self._truncate(part, [text], limit, bound, side)

    def _reading(self, text: str, bound: int) -> Literal["words", "ids", "places"]:
        """How a text is read: a text that may well have too many tokens with the places of its tokens, too."""
        if self._words is not None and self._words.reads(text):
            return "words"
        return "ids" if len(text) <= bound else "places"

    def _ids(self, texts: Iterable[str], reading: Literal["words", "ids"]) -> Iterator[array[int]]:
        if reading == "words" and self._words is not None:
            return map(self._words.ids, texts)
        return (array("i", encoding.ids) for encoding in encodings(self._tokenizer, texts))

    def _truncate(
        self, part: Literal["query", "document"], texts: Iterable[str], limit: int | None, bound: int, side: Side
    ) -> Iterator[tuple[str, CountedText]]:
        kept, given = tee(texts)
        heads = (_usual_part(text, bound, side) for text in given)
        for original, encoding in zip(kept, encodings(self._tokenizer, heads, offsets=True), strict=True):
            text, encoding = self._read_further(original, encoding, bound, side)
            tokens = len(encoding)
            ids = array("i", encoding.ids)
            whole = CountedText(part, text, tokens, tokens, at_least=len(text) < len(original), ids=ids)
            over = limit is not None and tokens > bound
            yield original, self._part(whole, bound, encoding.offsets, side) if over else whole

    def _read_further(self, original: str, encoding: Encoding, bound: int, side: Side) -> tuple[str, Encoding]:
        """The part of a text that holds more than `bound` tokens, if the text does, and its encoding."""
        read = _usual_part(original, bound, side)
        if len(read) == len(original) or len(encoding) > bound + MAX_TOKEN_CHARS:
            return read, encoding
        read = readable_part(original, bound, side)
        [encoding] = encodings(self._tokenizer, [read], offsets=True)
        return read, encoding

    def token_ids(self, texts: Iterable[str]) -> Iterator[array[int]]:
        """The ids of each text."""
        for by_words, group in groupby(texts, lambda text: self._words is not None and self._words.reads(text)):
            yield from self._ids(group, "words" if by_words else "ids")

    def ids_behind_space(self, texts: Sequence[CountedText]) -> Iterator[array[int]]:
        """The ids of each text behind a space, in few steps where its own ids are known."""
        for by_head, group in groupby(texts, self._reads_head):
            same = list(group)
            if by_head:
                known = [text.ids for text in same if text.ids is not None]
                yield from behind_space(self._tokenizer, [text.text for text in same], known)
            else:
                yield from self.token_ids(f" {text.text}" for text in same)

    def _reads_head(self, text: CountedText) -> bool:
        """Whether only the beginning is read again; words are found faster than that."""
        return self._words is not None and text.ids is not None and not self._words.reads(text.text)

    def shorten(self, text: CountedText, limit: int, side: Side = "right") -> CountedText:
        """The longest part of at most `limit` tokens that begins or ends between two characters."""
        if text.tokens <= limit:
            return text
        [encoding] = encodings(self._tokenizer, [text.text], offsets=True)
        return self._part(text, limit, encoding.offsets, side)

    def _part(self, text: CountedText, limit: int, offsets: Sequence[tuple[int, int]], side: Side) -> CountedText:
        for kept in range(limit, 0, -1):
            part = text.text[: offsets[kept][0]] if side == "right" else text.text[offsets[-kept][0] :]
            # A shorter text may split the word at its end into other tokens: count again.
            if (tokens := self.count(part)) <= limit:
                return replace(text, text=part, tokens=tokens, ids=None)
        return replace(text, text="", tokens=0, ids=None)


def readable_part(text: str, tokens: int, side: Side = "right") -> str:
    """A slice long enough to hold at least `tokens + 1` tokens, or the whole text."""
    return _end_of(text, max((tokens + 1) * MAX_TOKEN_CHARS, READ_AT_LEAST), side)


def _usual_part(text: str, tokens: int, side: Side) -> str:
    """A shorter slice, which is long enough for most texts."""
    return _end_of(text, max((tokens + 1) * USUAL_TOKEN_CHARS, READ_AT_LEAST), side)


def _end_of(text: str, chars: int, side: Side) -> str:
    """The first characters where the right side is removed, else the last."""
    return text[:chars] if side == "right" else text[-chars:]


class WordTokens:
    """Reads words with one tokenizer, which splits as Qwen's does. Safe to call from several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}

    @staticmethod
    def reads(text: str) -> bool:
        """Whether `ids` takes the text."""
        return len(text) <= MAX_CHARS and (text.isascii() or READ.fullmatch(text) is not None)

    def ids(self, text: str) -> array[int]:
        """The tokens of a text, as the tokenizer gives them, special tokens left out."""
        words = SPLIT.findall(text)
        try:
            return array("i", chain.from_iterable(map(self._known.__getitem__, words)))
        except KeyError:
            return self._learn(words)

    def _learn(self, words: Sequence[str]) -> array[int]:
        known = self._known
        ids = {word: known.get(word) for word in words}
        new = [word for word, found in ids.items() if found is None]
        found = {word: tuple(one.ids) for word, one in zip(new, encodings(self._tokenizer, new), strict=True)}
        if len(known) + len(found) > MAX_WORDS:
            self._known = known = {}
        known.update((word, found[word]) for word in new if len(word) <= MAX_WORD_CHARS)
        return array("i", chain.from_iterable(ids[word] or found[word] for word in words))


def behind_space(tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[array[int]]) -> Iterator[array[int]]:
    """The tokens of each text behind a space, as the tokenizer gives them, special tokens left out.

    Args:
        tokenizer: splits as Qwen's does.
        ids: of each bare text.
    """
    heads = chain.from_iterable((text[:HEAD_CHARS], f" {text[:HEAD_CHARS]}") for text in texts)
    read = encodings(tokenizer, heads, offsets=True)
    for text, bare in zip(texts, ids, strict=True):
        head, spaced = next(read), next(read)
        if (place := _first_common(head, spaced)) is not None:
            yield array("i", spaced.ids[: place[1]]) + bare[place[0] :]
        else:
            [whole] = encodings(tokenizer, [f" {text}"])
            yield array("i", whole.ids)


def _first_common(head: Encoding, spaced: Encoding) -> tuple[int, int] | None:
    """The first words after the first that begin at the same character: the index of a token in either encoding.

    The place where the last word begins is known, although more of the text may belong to it.
    """
    begun = dict(_beginnings(head))
    return next(((begun[at - 1], index) for at, index in _beginnings(spaced) if begun.get(at - 1)), None)


def _beginnings(encoding: Encoding) -> Iterator[tuple[int, int]]:
    """(character, index of the token) where a word begins."""
    before: int | None = None
    for index, (word, (at, _)) in enumerate(zip(encoding.word_ids, encoding.offsets, strict=True)):
        if word != before:
            before = word
            yield at, index
