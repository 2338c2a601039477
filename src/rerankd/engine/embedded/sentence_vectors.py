"""The embedded model's vectors of texts: of its reranker's sentences, and of the parts of a dense first stage."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rerankd.engine.embedded.files import SHA256, VOCABULARY, WEIGHTS, find_files
from rerankd.engine.embedded.network import DIMENSIONS, SentenceEncoder
from rerankd.engine.embedded.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from rerankd.engine.text_tokens import TextCounter

Vector = NDArray[np.float32]
NOTHING: Vector = np.zeros(DIMENSIONS, np.float32)

DIGEST = SHA256[WEIGHTS][:16]


class SentenceVectors:
    """Texts → vectors, by the network and its vocabulary.

    Raises:
        CheckpointNotFound: the package is not installed.
        CheckpointInvalid: its files are not the published ones.
    """

    def __init__(self, device: torch.device) -> None:
        self.folder: Path = find_files()
        self.vocabulary = Vocabulary(self.folder / VOCABULARY)
        self.counter = TextCounter(self.vocabulary.tokenizer)
        self._network = SentenceEncoder(self.folder / WEIGHTS, device)
        self._unreadable = frozenset((BEGIN, END, UNKNOWN, self.vocabulary.space))

    @property
    def num_parameters(self) -> int:
        """The number of learned parameters."""
        return self._network.num_parameters

    def of(self, texts: Iterable[str]) -> dict[str, Vector]:
        """Text → (DIMENSIONS,) of length 1, or of zeros if no piece of the text is known."""
        distinct = list(dict.fromkeys(texts))
        ids = dict(zip(distinct, map(framed, self.counter.token_ids(distinct)), strict=True))
        readable = [text for text in distinct if not self._unreadable.issuperset(ids[text])]
        vectors = dict(zip(readable, self._network.embed([ids[text] for text in readable]).numpy(), strict=True))
        return {text: vectors.get(text, NOTHING) for text in distinct}


class EmbeddedEmbedder:
    """The embedded model as a dense first stage. Implements `engine.protocols.EmbeddingModel`."""

    dimensions = DIMENSIONS
    num_truncated = 0

    def __init__(self, device: torch.device) -> None:
        self._vectors = SentenceVectors(device)

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`. It reads no instruct."""
        return self.documents(texts)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`."""
        vectors = self._vectors.of(texts)
        return np.stack([vectors[text] for text in texts]) if texts else np.empty((0, DIMENSIONS), np.float32)


def framed(ids: array[int]) -> array[int]:
    """With the tokens at both ends."""
    return array("i", (BEGIN, *ids, END))
