"""Qwen3-Embedding: texts → unit vectors, through the layers that serve the rerankers.

The vector of a text is the hidden state of the token at its end, after the final norm. A query stands behind its task,
a document alone. Source: https://huggingface.co/Qwen/Qwen3-Embedding-0.6B (README), and the checkpoint's own prompts.
Unlike there, control strings inside a text stay plain text.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rerankd.engine.batching import divided
from rerankd.engine.engine import MAX_BATCH_TOKENS
from rerankd.engine.loading.device_memory import free_bytes
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.embedding_files import Prompts
from rerankd.engine.out_of_memory import is_out_of_memory, return_cached_memory
from rerankd.engine.qwen3.batch_tokens import batch_tokens
from rerankd.engine.qwen3.loaded import load_network
from rerankd.engine.qwen3.model import rope_angles
from rerankd.engine.qwen3.packed import Packed
from rerankd.engine.qwen3.weights import Checkpoint, Progress, read_config
from rerankd.engine.tokenising import encodings, read_tokenizer, without_added
from rerankd.errors import CheckpointInvalid

logger = logging.getLogger(__name__)

MAX_TOKENS = 8192
"""Of a text with its task and its end, as in the README."""

END = "<|endoftext|>"

LEAST_DIMENSIONS = 32
"""The shortest vectors that the models were trained for."""


class Qwen3Embedder:
    """A checkpoint of Qwen3-Embedding. Implements `engine.protocols.EmbeddingModel`. Not thread-safe.

    Args:
        folder: contains config.json, tokenizer.json and *.safetensors.
        prompts: the checkpoint's own.
        dimensions: cuts the vectors, and makes them of length 1 again; None: all.

    Raises:
        CheckpointInvalid: a file is damaged, or is of another kind of model.
        SettingsError: the dimensions are out of range; see `load_network`.
    """

    def __init__(
        self, folder: Path, execution: Execution, progress: Progress, prompts: Prompts, dimensions: int | None = None
    ) -> None:
        config = read_config(folder)
        self.full_dimensions = config.hidden_size
        self.dimensions = dimensions or config.hidden_size
        self.num_truncated = 0
        self._prompts = prompts
        self._tokens = Tokens(folder, min(MAX_TOKENS, config.max_position_embeddings))
        if self._tokens.max_token_id >= config.vocab_size:
            raise CheckpointInvalid(f"{folder}: tokenizer.json and config.json belong to different models.")
        self._network, self._layers = load_network(Checkpoint(folder, config), execution, progress)
        self.kernels = self._layers.kernels
        self._batch_tokens = MAX_BATCH_TOKENS
        if execution.device.type != "cpu":
            itemsize = self._network.embed_tokens.weight.itemsize
            self._batch_tokens = batch_tokens(config, itemsize, free_bytes(execution.device))

    def queries(self, texts: Sequence[str], instruct: str | None = None) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`."""
        return self._vectors([self._prompts.query(instruct) + text for text in texts])

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `engine.protocols.EmbeddingModel`."""
        return self._vectors([self._prompts.document + text for text in texts])

    def token_ids(self, text: str) -> list[int]:
        """What the network reads of a text."""
        [ids] = self._tokens.of([text])
        return list(ids)

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        sequences = list(self._tokens.of(texts))
        self.num_truncated += self._tokens.take_truncated()
        rows = [self._in_memory(batch) for batch in divided(sequences, self._batch_tokens)]
        found: NDArray[np.float32] = torch.cat([torch.empty(0, self.dimensions), *rows]).numpy()
        return found

    def _in_memory(self, sequences: Sequence[array[int]]) -> Tensor:
        """`_pass`, in halves where it does not fit into the memory of the GPU. Later batches are smaller, too."""
        try:
            return self._pass(sequences)
        except RuntimeError as error:
            if len(sequences) == 1 or not is_out_of_memory(error):
                raise
        return_cached_memory()
        fewer = sum(map(len, sequences)) // 2
        if fewer < self._batch_tokens:
            self._batch_tokens = fewer
            logger.warning("The device's memory is full; a batch has %d tokens from now on.", fewer)
        half = len(sequences) // 2
        return torch.cat([self._in_memory(sequences[:half]), self._in_memory(sequences[half:])])

    @torch.inference_mode()
    def _pass(self, sequences: Sequence[array[int]]) -> Tensor:
        """(num_sequences, dimensions) float32 on the CPU."""
        table, config = self._network.embed_tokens.weight, self._network.config
        token_ids = torch.tensor(list(chain.from_iterable(sequences)), device=table.device)
        positions = torch.cat([torch.arange(len(one), device=table.device) for one in sequences])
        angles = rope_angles(positions, config)
        nothing = table.new_empty(config.num_hidden_layers, 2, 0, config.num_key_value_heads, config.head_dim)
        packed = Packed.of(map(len, sequences), [nothing] * len(sequences), ())
        last = self._layers(self._network.embed_tokens(token_ids), angles.cos(), angles.sin(), packed)
        hidden: Tensor = self._network.norm(last).float()[:, : self.dimensions]
        return functional.normalize(hidden, dim=1).cpu()


class Tokens:
    """Texts → token ids with the end that the checkpoint's tokenizer appends.

    Args:
        max_tokens: a longer text is cut before its end token.

    Raises:
        CheckpointInvalid: the tokenizer cannot be read, or knows no end.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        file = folder / "tokenizer.json"
        full = read_tokenizer(file)
        self._plain = without_added(full)
        self._end = array("i", full.encode("").ids)  # of its template
        if not self._end:  # the first revisions had none, and were read with it all the same
            if (end := full.token_to_id(END)) is None:
                raise CheckpointInvalid(f"{file} has no {END}: it is not a tokenizer of Qwen3-Embedding.")
            self._end = array("i", [end])
        self.max_token_id = max(full.get_vocab().values())
        self._room = max_tokens - len(self._end)
        self._truncated = 0

    def of(self, texts: Sequence[str]) -> Iterator[array[int]]:
        """The ids of each text."""
        for encoding in encodings(self._plain, texts):
            ids = encoding.ids
            self._truncated += len(ids) > self._room
            yield array("i", ids[: self._room]) + self._end

    def take_truncated(self) -> int:
        """How many texts were cut since it was asked last."""
        number, self._truncated = self._truncated, 0
        return number
