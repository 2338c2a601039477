"""The tokens of a text behind a space, from those of the bare text: only its beginning is read again.

A document is counted as it is, and stands behind a space in the prompt. Qwen's tokenizer splits a text into words from
left to right (`prompt.QWEN_SPLIT`) and reads each alone. So from the first place on where both texts begin a word, they
have the same tokens. Knows no template.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain

from tokenizers import Encoding, Tokenizer

from rerankd.engine.tokenising import encodings

HEAD_CHARS = 32
"""Characters that are read again; few texts begin with a longer word."""


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
