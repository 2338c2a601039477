"""An embedder without a model: the vector of a text is the sum of fixed random vectors of its words."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SYNONYMS = {"automobile": "car", "sonnenenergie": "solar"}


class WordEmbedder:
    """Fits `rerankd.search.embedding.Embeds`. It knows that an automobile is a car.

    Attributes:
        embedded: the documents so far.
    """

    num_truncated = 0

    def __init__(self, name: str = "words", dimensions: int = 64) -> None:
        self.name, self.digest, self.dimensions = name, f"digest of {name}", dimensions
        self.embedded: list[str] = []
        self.instructs: list[str | None] = []

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        self.instructs.append(instruct)
        return self._vectors(texts)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded += texts
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().replace("?", "").replace(".", "").split():
                row += self._word(SYNONYMS.get(word, word))
            row /= np.linalg.norm(row) or 1
        return rows

    def _word(self, word: str) -> NDArray[np.float32]:
        chance = random.Random(f"{self.name} {word}")
        return np.array([chance.gauss(0, 1) for _ in range(self.dimensions)], np.float32)
