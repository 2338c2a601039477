"""A stand-in for the kernel of `VarlenOperations`, on the CPU: torch's arguments and axes, and checks."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def exact_kernel(
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
    """In float32, rounded once. Refuses queries without keys, for which the result of the real kernel is undefined."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and len(cu_seq_q) == len(cu_seq_k)
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    queries, keys = list(pairwise(cu_seq_q.tolist())), list(pairwise(cu_seq_k.tolist()))
    assert queries[0][0] == keys[0][0] == 0 and queries[-1][1] == len(query) and keys[-1][1] == len(key) == len(value)
    assert (max_q, max_k) == (max(b - a for a, b in queries), max(b - a for a, b in keys))
    parts = [
        _attended(query[q:q_end], key[k:k_end], value[k:k_end], window_size)
        for (q, q_end), (k, k_end) in zip(queries, keys, strict=True)
    ]
    output, lse = torch.cat([one for one, _ in parts]), torch.cat([sums for _, sums in parts], dim=1)
    return output.to(query.dtype), lse


def _attended(query: Tensor, key: Tensor, value: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """One sequence: (n, heads, head_dim), and (heads, n); a causal sequence ends with its queries."""
    assert len(query) and len(key)
    heads_each = query.shape[1] // key.shape[1]
    key, value = (each.float().repeat_interleave(heads_each, dim=1) for each in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.float(), key) * query.shape[-1] ** -0.5
    if window == (-1, 0):
        past = torch.ones(len(query), len(key), dtype=torch.bool).tril(len(key) - len(query))
        scores = scores.masked_fill(~past, float("-inf"))
    else:
        assert window == (-1, -1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value), scores.logsumexp(-1)
