"""Causal attention over packed sequences, one `scaled_dot_product_attention` a sequence.

This is the specification: exact and plain. A faster path has the same signature and is tested against this.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_attention(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: list[int]) -> Tensor:
    """Each token attends to itself and to the earlier tokens of its own sequence.

    Args:
        query: (num_tokens, num_heads, head_dim).
        key, value: (num_tokens, num_kv_heads, head_dim); num_heads is a multiple of num_kv_heads.
        cu_seqlens: sequence i is tokens cu_seqlens[i] to cu_seqlens[i + 1]; starts with 0.

    Returns:
        (num_tokens, num_heads, head_dim), in the dtype of `query`.
    """
    output = torch.empty_like(query)
    for start, end in pairwise(cu_seqlens):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))  # (heads, length, head_dim)
        attended = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)
        output[start:end] = attended[0].transpose(0, 1)
    return output
