"""How fast this machine multiplies matrices of a model's shapes: what no forward pass on it can beat."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rerankd.engine.qwen3.linear import FloatLinear, Int8Linear, Int8Weight, Linear
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import Rows, quantized
from rerankd.types import Prompt

ROWS = 1536
SECONDS_EACH = 1.0


def matrix_seconds(config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> float:
    """Seconds that the linear layers take for one token, each shape timed alone on `ROWS` rows."""
    shape = Qwen3Config.from_json(config)
    heads = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    attended = shape.num_attention_heads * shape.head_dim
    linears = (
        (shape.hidden_size, heads),
        (attended, shape.hidden_size),
        (shape.hidden_size, 2 * shape.intermediate_size),
        (shape.intermediate_size, shape.hidden_size),
    )
    layer = sum(_seconds(inputs, outputs, dtype, device) for inputs, outputs in linears)
    return layer * shape.num_hidden_layers / ROWS


def computed_tokens(prompts: Sequence[Prompt]) -> int:
    """Tokens of one call when what its prompts share is computed once."""
    return sum(
        len(prompt.token_ids) - prompt.shared_with(before)
        for prompt, before in zip(prompts, (None, *prompts), strict=False)
    )


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
        linear(given).values[-1, -1].item()  # waits for a device that computes on its own
        calls += 1
    return elapsed / calls
