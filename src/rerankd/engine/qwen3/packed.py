"""The sequences of one pass, side by side. Knows their lengths, no token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from rerankd.engine.qwen3.ops import Segments


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequence i is rows offsets[i] to offsets[i + 1]. Keys and values are (num_layers, 2, length, num_kv_heads,
    head_dim).

    Attributes:
        bases: for each sequence, the keys and values of the tokens before it.
        keeps: for each of the first sequences, where its own keys and values go. The others may attend to them; their
            last tokens are the ends of prompts.
    """

    offsets: list[int]
    bases: Sequence[Tensor]
    keeps: Sequence[Tensor]

    @classmethod
    def of(cls, lengths: Iterable[int], bases: Sequence[Tensor], keeps: Sequence[Tensor]) -> Packed:
        """lengths: the tokens of each sequence."""
        return cls([0, *accumulate(lengths)], bases, keeps)

    @property
    def lengths(self) -> list[int]:
        """The tokens of each sequence."""
        return [end - start for start, end in zip(self.offsets, self.offsets[1:], strict=False)]

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Copies one layer's keys and values to where the sequences keep them."""
        for keep, start, end in zip(self.keeps, self.offsets, self.offsets[1:], strict=False):
            keep[layer, 0], keep[layer, 1] = key[start:end], value[start:end]

    def attending(self, layer: int) -> Segments:
        """For queries at every position."""
        return Segments(self.offsets, self.offsets, self._bases(layer, 0))

    def attending_last(self, layer: int) -> Segments:
        """For queries at `last_positions` only."""
        one_each = list(range(len(self.last_positions) + 1))
        return Segments(one_each, self.offsets[len(self.keeps) :], self._bases(layer, len(self.keeps)))

    @property
    def last_positions(self) -> list[int]:
        """The row of the last token of each prompt."""
        return [end - 1 for end in self.offsets[len(self.keeps) + 1 :]]

    def _bases(self, layer: int, first: int) -> list[tuple[Tensor, Tensor]]:
        return [(base[layer, 0], base[layer, 1]) for base in self.bases[first:]]
