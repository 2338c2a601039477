"""Embedding models that sentence-transformers runs, with the prompts of their makers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from rerankd.engine.encoders import fast_tokenizer, reason_of
from rerankd.engine.loading.activations import check_activations
from rerankd.engine.tokenising import encodings
from rerankd.errors import CheckpointInvalid

E5_PROMPTS = {"query": "query: ", "document": "passage: "}
"""Of the E5 models, which their files lack: https://huggingface.co/intfloat/multilingual-e5-base (README)."""

BATCH = 32


class SentenceEncoderModel:
    """Implements `engine.protocols.EmbeddingModel`. It reads no instruct.

    Args:
        dimensions: cuts the vectors, and makes them of length 1 again; None: all.

    Raises:
        CheckpointInvalid: sentence-transformers cannot load it.
    """

    def __init__(self, name: str, folder: Path, device: torch.device, dimensions: int | None = None) -> None:
        check_activations(folder)
        try:
            self._network = SentenceTransformer(str(folder), device=str(device), local_files_only=True)
        except Exception as error:
            raise CheckpointInvalid(f"sentence-transformers cannot load {folder}: {reason_of(error)}") from error
        self.full_dimensions = int(self._network.get_embedding_dimension() or 0)
        self.dimensions = dimensions or self.full_dimensions
        self.num_truncated = 0
        self._tokenizer: Tokenizer = fast_tokenizer(name, self._network.tokenizer)
        self._network.truncate_dim = dimensions
        if _lacks_prompts(name, self._network):
            self._network.prompts = {**self._network.prompts, **E5_PROMPTS}

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`."""
        return self._vectors(self._network.encode_query(list(texts), **self._options()), len(texts))

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`."""
        self._count_truncated(texts)
        return self._vectors(self._network.encode_document(list(texts), **self._options()), len(texts))

    def _options(self) -> dict[str, object]:
        return {"batch_size": BATCH, "normalize_embeddings": True, "show_progress_bar": False}

    def _vectors(self, found: object, number: int) -> NDArray[np.float32]:
        return np.asarray(found, np.float32).reshape(number, self.dimensions)

    def _count_truncated(self, texts: Sequence[str]) -> None:
        longest = self._network.max_seq_length
        if longest is None:
            return
        room = int(longest) - self._tokenizer.num_special_tokens_to_add(False)
        self.num_truncated += sum(len(encoding.ids) > room for encoding in encodings(self._tokenizer, texts))


def _lacks_prompts(name: str, network: SentenceTransformer) -> bool:
    is_e5 = "e5-" in name.lower() and "instruct" not in name.lower()
    return is_e5 and not any(network.prompts.values())
