"""Measures matrix multiplication in the shapes of a model: an upper bound for the speed of a forward pass.

The bound is the best rate that PyTorch's products or those of the kernels reach.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from rerankd.bench.kernel_rate import kernel_seconds
from rerankd.engine.qwen3.linear import FloatLinear, Int8Linear, Int8Weight, Linear
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import Rows, quantized
from rerankd.types import Prompt

ROWS = 1536
SECONDS_EACH = 1.0


def matrix_seconds(config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds per token for all linear layers, by PyTorch or by the kernels, whichever is faster here."""
    kernels = kernel_seconds(config, dtype) if device.type == "cpu" else None
    plain = _torch_seconds(config, dtype, device)
    return plain if kernels is None else min(plain, kernels)


def _torch_seconds(config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> float:
    """Each shape is timed on its own with `ROWS` rows."""
    heads = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    attended = config.num_attention_heads * config.head_dim
    linears = (
        (config.hidden_size, heads),
        (attended, config.hidden_size),
        (config.hidden_size, 2 * config.intermediate_size),
        (config.intermediate_size, config.hidden_size),
    )
    layer = sum(_seconds(inputs, outputs, dtype, device) for inputs, outputs in linears)
    return layer * config.num_hidden_layers / ROWS


def computed_tokens(prompts: Sequence[Prompt]) -> int:
    """The tokens that a timed call computes: the warm-up call has left the shared prefixes in the cache."""
    return sum(len(prompt.token_ids) - prompt.shared_len for prompt in prompts)


@torch.inference_mode()
def _seconds(inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> float:
    weight = torch.randn(outputs, inputs, device=device)
    rows = torch.randn(ROWS, inputs, device=device)
    linear: Linear
    if dtype == torch.int8:
        linear, given = Int8Linear(Int8Weight.of(weight), torch.bfloat16), quantized(rows)
    else:
        linear, given = FloatLinear(weight.to(dtype)), Rows(rows.to(dtype))
    linear(given)
    calls = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS_EACH:
        linear(given).values[-1, -1].item()  # waits for an asynchronous device
        calls += 1
    return elapsed / calls
