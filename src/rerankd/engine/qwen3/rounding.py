"""Quantizes the linear layers of a layer so that what rounding does to the values nearly cancels.

Attention averages values, with weights that sum to 1. An error that is the same in all tokens, and the rounding of the
value weights makes such errors, therefore passes through attention, whatever it attends to, and `output` adds it to the
residual stream of every token. Two things nearly cancel it, and cost nothing later:

- `output` takes up the error: its weights change toward the least squares solution for inputs in all directions.
- Query heads that share a value head get nearly the same average: the rounding error of one head's weight is added to
  the weight of the next head before that is rounded, so the sum of both is off by half a step, not by a whole one.

This needs no text to calibrate with. Compare Nagel et al. 2019 (https://arxiv.org/abs/1906.04721), which corrects such
shifts in biases, and Frantar et al. 2022 (https://arxiv.org/abs/2210.17323), where later weights of a row take up the
errors of earlier ones.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rerankd.engine.qwen3.linear import ROWS_AT_ONCE, Int8Weight, LayerWeights
from rerankd.engine.qwen3.model import Qwen3Config

STEPS = 2
"""Of conjugate gradients. More would take up more of the error, by changes that are too large for heads that do not
attend to the same tokens."""

ERRORS_AT_ONCE = 256
"""Rows of errors: what is computed of them on the way stays in the caches."""

TINY = torch.finfo(torch.float32).tiny


def quantized(weights: LayerWeights, config: Qwen3Config) -> LayerWeights:
    """The layer with int8 weights, each within one step of its float.

    Args:
        weights: tensors of float32 or bfloat16.
    """
    qkv, output, gate_up, down = weights.qkv, weights.output, weights.gate_up, weights.down
    assert isinstance(qkv, Tensor) and isinstance(output, Tensor) and isinstance(gate_up, Tensor)
    assert isinstance(down, Tensor), "This is a bug: the layer is quantized already."
    rounded, num_values = Int8Weight.of(qkv), config.num_key_value_heads * config.head_dim
    values = rounded.values[-num_values:] * rounded.scale[-num_values:, None]
    heads = output.view(len(output), config.num_key_value_heads, -1, config.head_dim)
    change = _taking_up(heads.sum(2).flatten(1), qkv[-num_values:], values, weights.input_norm) / heads.shape[2]
    return replace(
        weights,
        qkv=rounded,
        output=_diffused(heads, change.view(len(heads), heads.shape[1], -1)),
        gate_up=Int8Weight.of(gate_up),
        down=Int8Weight.of(down),
    )


def _taking_up(output: Tensor, exact: Tensor, rounded: Tensor, norm: Tensor) -> Tensor:
    """The change of `output` that takes up the error of the value weights.

    Args:
        output: the sum of the weights of all query heads that share a value head, (outputs, values).
        exact, rounded: value weights, (values, inputs).
        norm: the scale of each input.

    Returns:
        (outputs, values) float32.
    """
    dtype = exact.dtype  # that of the fast products
    inputs = (rounded * norm.float()).to(dtype)
    squares, taken = inputs @ inputs.T, torch.empty(len(inputs), len(inputs), dtype=dtype)
    for first in range(0, len(inputs), ERRORS_AT_ONCE):
        rows = slice(first, first + ERRORS_AT_ONCE)
        errors = ((rounded[rows] - exact[rows].float()) * norm.float()).to(dtype)
        taken[rows] = _solved((errors @ inputs.T).float(), squares)
    return (output.to(dtype) @ taken).float().neg_()


def _solved(left: Tensor, squares: Tensor) -> Tensor:
    """Approximates x of x × squares = left, by conjugate gradients row by row.

    Args:
        left: (rows, values) float32, which is overwritten.
        squares: (values, values).

    Returns:
        (rows, values) float32.
    """
    direction, size = left.clone(), left.square().sum(1)
    solved = torch.zeros_like(left)
    for later in reversed(range(STEPS)):
        image = (direction.to(squares.dtype) @ squares).float()
        step = (size / (direction * image).sum(1).clamp_min(TINY))[:, None]
        solved.addcmul_(step, direction)
        if later:
            left.addcmul_(step, image, value=-1)
            size, before = left.square().sum(1), size
            direction = torch.addcmul(left, (size / before.clamp_min(TINY))[:, None], direction)
    return solved


def _diffused(heads: Tensor, change: Tensor) -> Int8Weight:
    """Rounds heads + change to steps within one of those of `heads`.

    What rounding leaves of a query head's weight goes to the next one of its value head.

    Args:
        heads: (outputs, num_kv_heads, query heads of each, head_dim).
        change: of each query head, (outputs, num_kv_heads, head_dim).
    """
    values, scale = torch.empty(heads.shape, dtype=torch.int8), torch.empty(len(heads))
    for first in range(0, len(heads), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        part = heads[rows].float()
        scale[rows] = part.abs().amax(dim=(1, 2, 3)) / 127
        step = scale[rows].clamp_min(TINY)[:, None, None]
        more, left = change[rows] / step, torch.zeros_like(change[rows])
        for head in range(heads.shape[2]):
            exact = part[:, :, head] / step
            wanted = exact + more + left
            chosen = wanted.round().clamp((exact - 1).ceil(), (exact + 1).floor()).clamp(-127, 127)
            values[rows, :, head] = chosen
            left = (wanted - chosen).clamp(-0.5, 0.5)
    return Int8Weight(values.flatten(1), scale)
