"""Times layers of the kernels in which each token attends to itself only: nearly all of it is matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.kernels.choice import choose_kernels
from rerankd.engine.qwen3.kernels.native import NativeLayers, kernels_fit
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.packed import Packed

ROWS = 512
LAYERS = 2
SECONDS = 2.0


@torch.inference_mode()
def kernel_seconds(config: Qwen3Config, dtype: torch.dtype) -> float | None:
    """Seconds per token for all layers on the CPU; None without kernels for this dtype and shape."""
    kind_dtype = choose_dtype("auto", torch.device("cpu")) if dtype == torch.int8 else dtype
    kernels = choose_kernels(kind_dtype) if kernels_fit(config) else None
    if kernels is None:
        return None
    weights = _random_layers(config, kind_dtype, quantize=dtype == torch.int8)
    layers = NativeLayers(kernels, replace(config, num_hidden_layers=LAYERS), weights)
    rows = torch.randn(ROWS, config.hidden_size).to(kind_dtype)
    angles = torch.zeros(ROWS, config.head_dim // 2)
    nothing = rows.new_empty(LAYERS, 2, 0, config.num_key_value_heads, config.head_dim)
    packed = Packed.of([1] * ROWS, [nothing] * ROWS, [])
    best, ends = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < ends or best == float("inf"):
        started = time.perf_counter()
        layers(rows, angles.cos(), angles, packed)
        best = min(best, time.perf_counter() - started)
    return best / LAYERS / ROWS * config.num_hidden_layers


def _random_layers(config: Qwen3Config, dtype: torch.dtype, quantize: bool) -> Iterator[LayerWeights]:
    hidden, intermediate, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    all_heads = heads + 2 * config.num_key_value_heads

    def linear(outputs: int, inputs: int) -> torch.Tensor | Int8Weight:
        weight = torch.randn(outputs, inputs).mul_(inputs**-0.5).to(dtype)
        return Int8Weight.of(weight) if quantize else weight

    for _ in range(LAYERS):
        yield LayerWeights(
            qkv=linear(all_heads * config.head_dim, hidden),
            output=linear(hidden, heads * config.head_dim),
            gate_up=linear(2 * intermediate, hidden),
            down=linear(hidden, intermediate),
            input_norm=torch.ones(hidden, dtype=dtype),
            post_norm=torch.ones(hidden, dtype=dtype),
            qk_norm=torch.ones(all_heads - config.num_key_value_heads, config.head_dim, dtype=dtype),
        )
