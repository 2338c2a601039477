"""The tokens of texts in Latin script, word by word from memory: several times as fast as the tokenizer.

Qwen's tokenizer splits a text into words before BPE (`prompt.QWEN_SPLIT`), and BPE reads each word alone. So the tokens
of a text are those of its words, and most words of a text were read before. The expression here is Qwen's, written out
for the characters of Latin script, in which NFC composes nothing. Knows no template.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import chain

from tokenizers import Tokenizer

from rerankd.engine.tokenising import encodings

MAX_CHARS = 16_384
"""Of a text: splitting holds Python's lock, for half a millisecond."""

MAX_WORDS = 65_536
"""Words kept, some 15 MB; then all are forgotten."""

MAX_WORD_CHARS = 32
"""Longer words are read by the tokenizer each time."""

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
