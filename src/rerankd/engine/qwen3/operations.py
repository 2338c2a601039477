"""What happens between the matrix products, behind one signature: plain PyTorch here, kernels where there are some.

`TorchOperations` runs on every device and in every dtype; `kernels.py` has the same operations for bfloat16 on CPU
and is tested against these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Segments:
    """Packed sequences, each with a prefix whose keys and values are known.

    q_offsets, k_offsets: segment i is rows offsets[i] to offsets[i + 1] of the queries, and of the keys and values;
    its queries are its last positions. prefixes: (keys, values) of each segment's prefix in one layer,
    (prefix_len, num_kv_heads, head_dim) each.
    """

    q_offsets: Sequence[int]
    k_offsets: Sequence[int]
    prefixes: Sequence[tuple[Tensor, Tensor]]


class Operations(Protocol):
    """The operations of a layer other than its matrix products. T: number of tokens."""

    def add_rmsnorm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """x (T, hidden_size) += delta, in place; returns x / rms(x) × weight."""
        ...

    def norm_rope(self, heads: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> None:
        """RMSNorm over each head, then RoPE, in place.

        Args:
            heads: (T, num_heads, head_dim), rows may be strided; weight: (num_heads, head_dim);
            cos, sin: (T, head_dim / 2) float32.
        """
        ...

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """(T, 2 × intermediate_size) → silu(first half) × second half."""
        ...

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
        """Causal attention of each segment over its prefix and itself.

        Args:
            query: (num_queries, num_heads, head_dim); key, value: (T, num_kv_heads, head_dim); rows may be strided.

        Returns:
            (num_queries, num_heads × head_dim).
        """
        ...


class TorchOperations:
    """Any device, any dtype; the specification of the kernels."""

    def add_rmsnorm(self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        if delta is not None:
            x += delta
        return weight * _normed(x, eps)

    def norm_rope(self, heads: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> None:
        normed = weight * _normed(heads, eps)
        left, right = normed.chunk(2, dim=-1)
        cos, sin = cos.to(heads.dtype)[:, None], sin.to(heads.dtype)[:, None]
        heads.copy_(torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1))

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        for i, (prefix_key, prefix_value) in enumerate(segments.prefixes):
            queries = slice(segments.q_offsets[i], segments.q_offsets[i + 1])
            own = slice(segments.k_offsets[i], segments.k_offsets[i + 1])
            q = query[queries].transpose(0, 1)[None]  # (1, num_heads, num_queries, head_dim)
            k = torch.cat([prefix_key, key[own]]).transpose(0, 1)[None]
            v = torch.cat([prefix_value, value[own]]).transpose(0, 1)[None]
            output[queries] = _causal(q, k, v)[0].transpose(0, 1)
        return output.flatten(1)


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose queries are the last positions of the keys; in blocks, so that the mask stays small."""
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
