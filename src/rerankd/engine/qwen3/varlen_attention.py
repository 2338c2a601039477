"""Attention for GPUs without padding, by `torch.nn.attention.varlen` (FlashAttention).

Each segment attends to itself, causally. The queries of all segments that share a prefix attend to one copy of its keys
and values, as one sequence. The log-sum-exps of the scores weigh the two results (Juravsky et al. 2024, "Hydragen").

Not measured on a GPU; `gpu_operations.py` compares it with float32 on the user's card before it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, chain, pairwise
from typing import Protocol, cast

import torch
from torch import Tensor

from rerankd.engine.qwen3.ops import Rows, Segments, TorchOperations

KEPT_PLANS = 4
"""A pass has two: one for its last layer, one for the others."""

FULL = (-1, -1)
CAUSAL = (-1, 0)

Sharing = tuple[tuple[int, tuple[int, ...]], ...]
"""The length of each distinct prefix, and the segments that have it."""


class Kernel(Protocol):
    """`torch.nn.attention.varlen.varlen_attn` with grouped heads that returns the log-sum-exps too."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        window_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """Attention of each sequence of queries over its sequence of keys; scores are scaled by head_dim ** -0.5.

        Args:
            query: (num_queries, num_heads, head_dim); key, value: (T, num_kv_heads, head_dim).
            cu_seq_q, cu_seq_k: where each sequence starts, and where the last one ends: int32.
            max_q, max_k: the longest sequences.
            window_size: (-1, -1) for all keys; (-1, 0) for causal attention, whose queries are the last positions.

        Returns:
            (num_queries, num_heads, head_dim), and natural log-sum-exps, (num_heads, num_queries) float32. (The
            docstring of torch 2.13 has the axes the other way round; its kernel and its fake kernel agree with this.)
        """
        ...


def torch_kernel() -> Kernel:
    """The kernel of this build of torch.

    Raises:
        ImportError: it has none.
    """
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    return cast(Kernel, partial(varlen_attn, return_aux=AuxRequest(lse=True), enable_gqa=True))


class VarlenOperations(TorchOperations):
    """Attention by a kernel for sequences of different lengths; the rest is plain PyTorch.

    Args:
        kernel: must take the dtype and the device of the tensors.
    """

    kernels = "varlen"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self._kernel = kernel

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Rows:
        """See `Operations`.

        Raises:
            ValueError: the kernel returned another shape.
        """
        sharing = _sharing(segments)
        plan = _plan(tuple(segments.q_offsets), tuple(segments.k_offsets), sharing, query.device)
        keys = slice(segments.k_offsets[0], segments.k_offsets[-1])  # for the last layer, those of the ends only
        output, own_lse = self._attend(query, key[keys], value[keys], plan.own, CAUSAL)
        if plan.prefixes is not None:
            rows = plan.rows
            shared_keys, shared_values = _of_prefixes(segments, sharing)
            shared, lse = self._attend(query[rows], shared_keys, shared_values, plan.prefixes, FULL)
            output[rows] = _merged(output[rows], own_lse[:, rows], shared, lse)
        return Rows(output.flatten(1))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, lengths: _Lengths, window: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        output, lse = self._kernel(
            query,
            key,
            value,
            lengths.q_offsets,
            lengths.k_offsets,
            lengths.longest_q,
            lengths.longest_k,
            window_size=window,
        )
        expected = (query.shape[1], query.shape[0])
        if output.shape != query.shape or lse.shape != expected:  # an index past the end would stop the card
            raise ValueError(f"output {tuple(output.shape)}, log-sum-exps {tuple(lse.shape)} instead of {expected}")
        return output, lse


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Sequences of queries and of keys, as the kernel takes them."""

    q_offsets: Tensor
    k_offsets: Tensor
    longest_q: int
    longest_k: int

    @classmethod
    def of(cls, q_offsets: Sequence[int], k_offsets: Sequence[int], device: torch.device) -> _Lengths:
        return cls(
            torch.tensor(q_offsets, dtype=torch.int32, device=device),
            torch.tensor(k_offsets, dtype=torch.int32, device=device) - k_offsets[0],
            _longest(q_offsets),
            _longest(k_offsets),
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the kernel finds each sequence; the same for nearly all layers of a pass.

    own: each segment over itself. rows: the queries that have a prefix, those of one prefix together. prefixes: these
    over their prefixes; None if no segment has one, because the result of an empty sequence is undefined.
    """

    own: _Lengths
    rows: Tensor
    prefixes: _Lengths | None


@lru_cache(KEPT_PLANS)
def _plan(q_offsets: tuple[int, ...], k_offsets: tuple[int, ...], sharing: Sharing, device: torch.device) -> _Plan:
    rows = [
        list(chain.from_iterable(range(q_offsets[one], q_offsets[one + 1]) for one in members))
        for _, members in sharing
    ]
    lengths = [length for length, _ in sharing]
    prefixes = [0, *accumulate(map(len, rows))], [0, *accumulate(lengths)]
    return _Plan(
        own=_Lengths.of(q_offsets, k_offsets, device),
        rows=torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long, device=device),
        prefixes=_Lengths.of(*prefixes, device) if sharing else None,
    )


def _sharing(segments: Segments) -> Sharing:
    found: dict[tuple[int, int], list[int]] = {}
    for index, (key, _) in enumerate(segments.prefixes):
        if len(key):
            found.setdefault((key.data_ptr(), len(key)), []).append(index)
    return tuple((length, tuple(members)) for (_, length), members in found.items())


def _of_prefixes(segments: Segments, sharing: Sharing) -> tuple[Tensor, Tensor]:
    """The keys, and the values, of the distinct prefixes, side by side."""
    keys, values = zip(*(segments.prefixes[members[0]] for _, members in sharing), strict=True)
    return (keys[0], values[0]) if len(keys) == 1 else (torch.cat(keys), torch.cat(values))


def _merged(own: Tensor, own_lse: Tensor, shared: Tensor, shared_lse: Tensor) -> Tensor:
    """Attention over the keys of both, from attention over each, (n, heads, head_dim); computed in float32.

    Args:
        own_lse, shared_lse: (heads, n). exp(lse) is the sum of a softmax, so the sigmoid of their difference is the
            share of the second sum in both; it does not overflow.
    """
    share = torch.sigmoid(shared_lse.float() - own_lse.float()).T[:, :, None]
    return torch.lerp(own.float(), shared.float(), share).to(own.dtype)


def _longest(offsets: Sequence[int]) -> int:
    return max(end - start for start, end in pairwise(offsets))
