"""The operations between the linear layers, behind one protocol.

`TorchOperations` runs on every device and in every dtype. `kernels/` computes whole layers in C++ on CPUs; tests
compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Segments:
    """Packed sequences, each with the computed keys and values of a prefix.

    q_offsets, k_offsets: segment i is rows offsets[i] to offsets[i + 1] of the queries, and of the keys and values.
    Its queries are its last positions. prefixes: (keys, values) of each segment's prefix in one layer,
    (prefix_len, num_kv_heads, head_dim) each.
    """

    q_offsets: Sequence[int]
    k_offsets: Sequence[int]
    prefixes: Sequence[tuple[Tensor, Tensor]]


class Rows(NamedTuple):
    """Row i is (values[i] − zero point) × scale[i].

    values: (num_rows, n) in the dtype of the network with zero point 0, or uint8 with zero point 128.
    scale: (num_rows,) float32; None means 1. The scale of a row commutes with a linear layer, so the next operation
    applies it.
    """

    values: Tensor
    scale: Tensor | None = None

    def scaled(self) -> Tensor:
        """The output of a linear layer with its scale applied, in the same dtype."""
        return self.values if self.scale is None else (self.values * self.scale[:, None]).to(self.values.dtype)


class Operations(Protocol):
    """The operations of a layer other than its linear layers. T: number of tokens.

    Takes the output of a linear layer as `Rows`, and returns the input of the next one as `Rows`.
    """

    @property
    def kernels(self) -> str:
        """Those that compute attention, or "plain"."""
        ...

    def add_rmsnorm(self, x: Tensor, delta: Rows | None, weight: Tensor, eps: float) -> Rows:
        """x (T, hidden_size) += delta, in place; returns x / rms(x) × weight."""
        ...

    def norm_rope(self, qkv: Rows, weight: Tensor, cos: Tensor, sin: Tensor, eps: float | None) -> Tensor:
        """RMSNorm and RoPE of each query and key head. The value heads, which have no weight, are only scaled.

        Args:
            qkv: (T, heads × head_dim), overwritten; weight: (num_heads, head_dim);
            cos, sin: (T, head_dim / 2) float32; eps: None for RoPE alone.

        Returns:
            (T, heads, head_dim).
        """
        ...

    def silu_mul(self, gate_up: Rows) -> Rows:
        """(T, 2 × intermediate_size) → silu(first half) × second half."""
        ...

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Rows:
        """Causal attention of each segment over its prefix and itself.

        Args:
            query: (num_queries, num_heads, head_dim); key, value: (T, num_kv_heads, head_dim); rows may be strided.

        Returns:
            (num_queries, num_heads × head_dim).
        """
        ...


class TorchOperations:
    """Any device, any dtype; the specification of the kernels.

    Args:
        quantize: return int8 rows to the linear layers.
    """

    kernels = "plain"

    def __init__(self, quantize: bool = False) -> None:
        self._quantize = quantize

    def add_rmsnorm(self, x: Tensor, delta: Rows | None, weight: Tensor, eps: float) -> Rows:
        if delta is not None:
            x += delta.scaled()
        return self._rows(weight * _normed(x, eps))

    def norm_rope(self, qkv: Rows, weight: Tensor, cos: Tensor, sin: Tensor, eps: float | None) -> Tensor:
        num_heads, head_dim = weight.shape
        rows = qkv.scaled()
        heads = rows.view(len(rows), -1, head_dim)
        normed = heads[:, :num_heads] if eps is None else weight * _normed(heads[:, :num_heads], eps)
        left, right = normed.chunk(2, dim=-1)
        cos, sin = cos.to(heads.dtype)[:, None], sin.to(heads.dtype)[:, None]
        heads[:, :num_heads] = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
        return heads

    def silu_mul(self, gate_up: Rows) -> Rows:
        gate, up = gate_up.scaled().chunk(2, dim=-1)
        return self._rows(F.silu(gate) * up)

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Rows:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for i, (prefix_key, prefix_value) in enumerate(segments.prefixes):
            queries = slice(segments.q_offsets[i], segments.q_offsets[i + 1])
            own = slice(segments.k_offsets[i], segments.k_offsets[i + 1])
            q = query[queries].transpose(0, 1)[None]  # (1, num_heads, num_queries, head_dim)
            k = torch.cat([prefix_key, key[own]]).transpose(0, 1)[None]
            v = torch.cat([prefix_value, value[own]]).transpose(0, 1)[None]
            output[queries] = _causal(q, k, v)[0].transpose(0, 1)
        return self._rows(output.flatten(1))

    def _rows(self, x: Tensor) -> Rows:
        return quantized(x) if self._quantize else Rows(x)


def quantized(x: Tensor) -> Rows:
    """Quantizes each row to uint8. Its largest absolute value is 127 steps from the zero point 128."""
    scale = x.abs().amax(dim=-1).float() / 127
    steps = x.float() / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return Rows((steps.round() + 128).to(torch.uint8), scale)


class GroupedOperations(TorchOperations):
    """For GPUs without `VarlenOperations`: pads segments of one prefix and similar length together.

    GPUs need few, large operations. Pads only in attention, never in the linear layers. Not measured on a GPU; tested
    against TorchOperations on CPU.
    """

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Rows:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for group in _groups(segments):
            prefix_key, prefix_value = segments.prefixes[group[0]]
            q_rows, q_valid = _rows_of(segments.q_offsets, group, query.device)
            k_rows, k_valid = _rows_of(segments.k_offsets, group, query.device)
            prefix_len, heads_each = len(prefix_key), query.shape[1] // key.shape[1]
            keys = _with_prefix(prefix_key, key[k_rows]).repeat_interleave(heads_each, dim=1)
            values = _with_prefix(prefix_value, value[k_rows]).repeat_interleave(heads_each, dim=1)
            mask = _causal_mask(q_valid, k_valid, prefix_len)
            attended = F.scaled_dot_product_attention(query[q_rows].transpose(1, 2), keys, values, attn_mask=mask)
            output[q_rows[q_valid]] = attended.transpose(1, 2)[q_valid]
        return self._rows(output.flatten(1))


def _groups(segments: Segments) -> list[list[int]]:
    """Indices of segments that share a prefix and have similar lengths."""
    groups: dict[tuple[int, int, int, int], list[int]] = {}
    for index, (prefix_key, _) in enumerate(segments.prefixes):
        num_queries = segments.q_offsets[index + 1] - segments.q_offsets[index]
        num_keys = segments.k_offsets[index + 1] - segments.k_offsets[index]
        # The lengths in a group differ by a factor below √2.
        half_octaves = (int(2 * math.log2(num_queries)), int(2 * math.log2(num_keys)))
        groups.setdefault((prefix_key.data_ptr(), len(prefix_key), *half_octaves), []).append(index)
    return list(groups.values())


def _rows_of(offsets: Sequence[int], group: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows of each segment, (segments, longest), padded with its last row; and a mask without the padding."""
    first = torch.tensor([offsets[index] for index in group], device=device)[:, None]
    length = torch.tensor([offsets[index + 1] - offsets[index] for index in group], device=device)[:, None]
    place = torch.arange(max(offsets[index + 1] - offsets[index] for index in group), device=device)[None]
    return first + torch.minimum(place, length - 1), place < length


def _with_prefix(prefix: Tensor, own: Tensor) -> Tensor:
    """(prefix_len, heads, head_dim) and (segments, longest, …) → (segments, heads, prefix_len + longest, head_dim)."""
    return torch.cat([prefix.expand(len(own), *prefix.shape), own], dim=1).transpose(1, 2)


def _causal_mask(q_valid: Tensor, k_valid: Tensor, prefix_len: int) -> Tensor:
    """(segments, 1, queries, prefix_len + keys): a segment's queries are its last positions."""
    seen_before = (k_valid.sum(1) - q_valid.sum(1))[:, None, None]
    queries = torch.arange(q_valid.shape[1], device=q_valid.device)[None, :, None]
    keys = torch.arange(-prefix_len, k_valid.shape[1], device=q_valid.device)[None, None, :]
    return (keys <= queries + seen_before)[:, None]


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention with queries at the last positions of the keys, in blocks that keep the mask small."""
    blocks = []
    seen = key.shape[2] - query.shape[2]  # positions before the first query
    for block in query.split(QUERY_BLOCK, dim=2):  # type: ignore[no-untyped-call]  # of torch
        seen += block.shape[2]
        mask = torch.ones(block.shape[2], seen, dtype=torch.bool, device=query.device).tril(seen - block.shape[2])
        blocks.append(
            F.scaled_dot_product_attention(block, key[:, :, :seen], value[:, :, :seen], attn_mask=mask, enable_gqa=True)
        )
    return torch.cat(blocks, dim=2)


def _normed(x: Tensor, eps: float) -> Tensor:
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).to(x.dtype)
