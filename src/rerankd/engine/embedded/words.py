"""The words and scripts that two texts share. Knows no vector.

A word is a piece of the vocabulary, in lower case; unknown text is split into pairs of characters. The weight of a word
is −log of its probability, so a rare word weighs more than a frequent one. It needs no other documents.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from zlib import crc32

from tokenizers import Encoding

from rerankd.engine.embedded.vocabulary import UNKNOWN, Vocabulary
from rerankd.engine.tokenising import encodings

Scripts = Mapping[str, float]
"""The share of each script among the letters of a text, without unsupported scripts."""

SCRIPTS = {
    "LATIN": "LATIN",
    "CJK": "CJK",
    "HIRAGANA": "CJK",
    "KATAKANA": "CJK",
    "HANGUL": "HANGUL",
    "CYRILLIC": "CYRILLIC",
    "ARABIC": "ARABIC",
    "THAI": "THAI",
}
"""The scripts of the 16 languages, by the first word of a character's Unicode name."""


class Words:
    """Converts texts to word ids."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def of(self, texts: Sequence[str]) -> Iterator[array[int]]:
        """The distinct words of each text: ids of pieces, and negative numbers for pairs of unknown characters."""
        lower = (text.lower() for text in texts)
        for encoding in encodings(
            self._vocabulary.tokenizer, lower, offsets=True
        ):  # without offsets, unknown text is "<unk>"
            yield array("q", dict.fromkeys(self._words(encoding)))

    def _words(self, encoding: Encoding) -> Iterator[int]:
        for number, piece in zip(encoding.ids, encoding.tokens, strict=True):
            if number == UNKNOWN:
                yield from (-1 - crc32(pair.encode()) for pair in _pairs(piece))
            elif number != self._vocabulary.space:
                yield number

    def weights(self, words: Sequence[int]) -> dict[int, float]:
        """The share of each word in the total weight."""
        log_probabilities = self._vocabulary.log_probabilities
        weights = {word: -log_probabilities[max(word, UNKNOWN)] for word in words}
        total = sum(weights.values())
        return {word: weight / total for word, weight in weights.items()}


def _pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(max(1, len(text) - 1))]


def shared(weights: Mapping[int, float], words: Sequence[int]) -> float:
    """The share of a query's weight that is found among a text's words, in [0, 1]."""
    return sum(weights.get(word, 0.0) for word in words)


def scripts_of(text: str) -> Scripts:
    """Empty where there is no letter of a known script."""
    letters: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script(character):
            letters[script] += count
    return {script: count / letters.total() for script, count in letters.items()}


@lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    return SCRIPTS.get(unicodedata.name(character, "").split(" ")[0]) if character.isalpha() else None


def foreign(query: Scripts, document: Scripts) -> float:
    """0 where both use the same scripts or one has no letters, 1 where they have none in common."""
    if not query or not document:
        return 0.0
    return 1 - sum(min(share, document.get(script, 0.0)) for script, share in query.items())
