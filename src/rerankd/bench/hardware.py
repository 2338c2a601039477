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
ROWS_GPU = 8192
"""Half of the largest batch: tiles of 128 × 128 for every unit of a card, several times over."""

CALLS_GPU = 20
"""Products that a GPU gets at once: it works while the next ones are prepared."""

SECONDS_EACH = 1.0


def matrix_seconds(config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds per token for all linear layers, by PyTorch or by the kernels, whichever is faster here."""
    kernels = kernel_seconds(config, dtype) if device.type == "cpu" else None
    plain = _torch_seconds(config, dtype, device)
    return plain if kernels is None else min(plain, kernels)


def linear_flops(config: Qwen3Config) -> int:
    """Operations of all linear layers for one token: a multiplication and an addition for each weight."""
    return 2 * config.num_hidden_layers * sum(inputs * outputs for inputs, outputs in _linears(config))


def _torch_seconds(config: Qwen3Config, dtype: torch.dtype, device: torch.device) -> float:
    """Each shape is timed on its own, with many rows."""
    num_rows = ROWS if device.type == "cpu" else ROWS_GPU
    layer = sum(_seconds(inputs, outputs, num_rows, dtype, device) for inputs, outputs in _linears(config))
    return layer * config.num_hidden_layers / num_rows


def _linears(config: Qwen3Config) -> Sequence[tuple[int, int]]:
    """Inputs and outputs of each linear layer of a layer."""
    heads = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    attended = config.num_attention_heads * config.head_dim
    return (
        (config.hidden_size, heads),
        (attended, config.hidden_size),
        (config.hidden_size, 2 * config.intermediate_size),
        (config.intermediate_size, config.hidden_size),
    )


def computed_tokens(prompts: Sequence[Prompt]) -> int:
    """The tokens that a timed call computes: the warm-up call has left the shared prefixes in the cache."""
    return sum(len(prompt.token_ids) - prompt.shared_len for prompt in prompts)


@torch.inference_mode()
def _seconds(inputs: int, outputs: int, num_rows: int, dtype: torch.dtype, device: torch.device) -> float:
    weight = torch.randn(outputs, inputs, device=device)
    rows = torch.randn(num_rows, inputs, device=device)
    linear: Linear
    if dtype == torch.int8:
        linear, given = Int8Linear(Int8Weight.of(weight), torch.bfloat16), quantized(rows)
    else:
        linear, given = FloatLinear(weight.to(dtype)), Rows(rows.to(dtype))
    calls_at_once = 1 if device.type == "cpu" else CALLS_GPU
    for _ in range(calls_at_once):  # the library chooses its kernel, and a card its clock
        linear(given)
    _wait_for(device)
    calls = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < SECONDS_EACH:
        for _ in range(calls_at_once):
            linear(given)
        _wait_for(device)
        calls += calls_at_once
    return elapsed / calls


def _wait_for(device: torch.device) -> None:
    """Until the device has computed what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
