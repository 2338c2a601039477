"""How many tokens a batch on a GPU may have: those whose activations fit into the memory that the weights leave.

A batch of T tokens is one pass. Its memory grows with T, and is largest in one layer, of which these live at a time
(TorchLayers over GroupedOperations, which need more than VarlenOperations; a row is one token, an element has the size
of the dtype):

- through the whole layer: the residual, its normed rows (2 × hidden_size), and query, key and value;
- in attention: the result, twice; queries and result of the padded groups, a factor of √2 each, together 3; keys and
  values, repeated for each query head, with `KEYS_EACH` rows a token, and once more before they are repeated;
- or in the MLP: the result of attention, and 4 × intermediate_size (gate and up, SiLU, product).

To that come RoPE's angles, the mask of attention, as bool and in the dtype, and keys and values in all layers, since a
prompt may have a prefix of its own, which the pass keeps. Rows of the head are few: one a prompt.

Not measured on a GPU. Where the estimate is too high, the engine halves the batch: see `out_of_memory`.
"""

from __future__ import annotations

from rerankd.engine.batching import LONGEST
from rerankd.engine.chunks import LANE_TOKENS, LANES
from rerankd.engine.engine import MAX_BATCH_TOKENS_GPU
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.shared_prefix import MAX_PREFIX_BYTES

LEAST = 2048
"""Rows enough for the matrix units, whatever memory there is."""

KEYS_EACH = 3
"""Keys for each token of a batch: a prefix as long as the document, and √2 of padding."""

MASKED_KEYS = MAX_BATCH_TOKENS_GPU // 2
"""Of the longest prompt that is one step. A step of a longer one has fewer tokens by what its keys are more."""

FRAGMENTS = 0.1
"""The share of the free memory that the allocator may not find in one piece."""


def batch_tokens(config: Qwen3Config, itemsize: int, free_bytes: int | None) -> int:
    """The tokens of a batch, from `LEAST` to MAX_BATCH_TOKENS_GPU, beyond which nothing gets faster.

    Args:
        itemsize: bytes of an element of the activations.
        free_bytes: after loading the weights; None: not known.
    """
    if free_bytes is None:
        return MAX_BATCH_TOKENS_GPU
    held = _kept_bytes(config, itemsize) * LANE_TOKENS * (len(LANES) + 1)  # of unfinished prompts
    reserve = MAX_PREFIX_BYTES + min(held, free_bytes // 2) + int(FRAGMENTS * free_bytes)
    tokens = int((free_bytes - reserve) / (LONGEST * token_bytes(config, itemsize)))
    return max(LEAST, min(tokens, MAX_BATCH_TOKENS_GPU))


def token_bytes(config: Qwen3Config, itemsize: int) -> int:
    """The memory that a pass needs for each of its tokens, at its peak."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    beside = 2 * config.hidden_size + queries + 2 * keys
    attention = 5 * queries + KEYS_EACH * 2 * (queries + keys)
    mlp = queries + 4 * config.intermediate_size
    angles = 4 * config.head_dim  # cos and sin, float32, for half of the dimensions
    mask = (1 + itemsize) * MASKED_KEYS
    return itemsize * (beside + max(attention, mlp)) + angles + mask + _kept_bytes(config, itemsize)


def _kept_bytes(config: Qwen3Config, itemsize: int) -> int:
    """A token's keys and values in all layers."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
