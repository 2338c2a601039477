"""The sequences of one pass, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor

from rerankd.engine.qwen3.ops import Segments


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens to compute after `base`, the keys and values of the tokens before them.

    base: (num_layers, 2, length, num_kv_heads, head_dim). keep: receives the keys and values of these tokens, in the
    same layout; None for the end of a prompt.
    """

    token_ids: Sequence[int]
    base: Tensor
    keep: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """Segments side by side. Segment i is rows offsets[i] to offsets[i + 1]; the first `num_kept` have `keep`.

    The segments without `keep` may attend to the keys and values that the others leave.
    """

    segments: Sequence[Segment]
    offsets: list[int]
    num_kept: int

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Packed:
        offsets = [0, *accumulate(len(segment.token_ids) for segment in segments)]
        return cls(segments, offsets, sum(segment.keep is not None for segment in segments))

    def keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Copies one layer's keys and values to where the segments keep them."""
        for segment, start, end in zip(self.segments[: self.num_kept], self.offsets, self.offsets[1:], strict=False):
            assert segment.keep is not None
            segment.keep[layer, 0], segment.keep[layer, 1] = key[start:end], value[start:end]

    def attending(self, layer: int) -> Segments:
        """For queries at every position."""
        return Segments(self.offsets, self.offsets, self._bases(layer, 0))

    def attending_last(self, layer: int) -> Segments:
        """For queries at `last_positions` only."""
        one_each = list(range(len(self.last_positions) + 1))
        return Segments(one_each, self.offsets[self.num_kept :], self._bases(layer, self.num_kept))

    @property
    def last_positions(self) -> list[int]:
        """The row of the last token of each segment without `keep`."""
        return [end - 1 for end in self.offsets[self.num_kept + 1 :]]

    def _bases(self, layer: int, first: int) -> list[tuple[Tensor, Tensor]]:
        return [(segment.base[layer, 0], segment.base[layer, 1]) for segment in self.segments[first:]]
