"""A layer of the served forward pass: four linear layers, in float or int8, and three norms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rerankd.engine.qwen3.model import Attention, DecoderLayer, Qwen3Reranker
from rerankd.engine.qwen3.ops import Rows

ROWS_AT_ONCE = 64
"""Of a weight that is quantized: what is computed on the way stays in the caches."""


class Linear(Protocol):
    """Rows × weightᵀ: (T, inputs) → (T, outputs)."""

    def __call__(self, rows: Rows) -> Rows: ...


@dataclass(frozen=True, slots=True)
class FloatLinear:
    """Computes in the dtype of the weight, (outputs, inputs)."""

    weight: Tensor

    def __call__(self, rows: Rows) -> Rows:
        return Rows(F.linear(rows.values, self.weight))


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A weight with one scale per row: values (outputs, inputs) int8 in [-127, 127], scale (outputs,) float32."""

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        """Rounds to nearest. The largest absolute value of each row becomes 127."""
        values, scale = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
        for first in range(0, len(weight), ROWS_AT_ONCE):
            rows = slice(first, first + ROWS_AT_ONCE)
            part = weight[rows].float()
            scale[rows] = part.abs().amax(dim=-1) / 127
            steps = part / scale[rows].clamp_min(torch.finfo(torch.float32).tiny)[:, None]
            values[rows] = steps.round_()
        return cls(values, scale)


class Int8Linear:
    """uint8 rows × int8 weights, summed exactly in int32, through oneDNN.

    Args:
        dtype: of the result, float32 or bfloat16.
    """

    def __init__(self, weight: Int8Weight, dtype: torch.dtype) -> None:
        self._packed = torch.ops.onednn.qlinear_prepack(weight.values, None)
        self._scale = weight.scale
        self._zero_points = torch.zeros(len(weight.scale), dtype=torch.int64)
        self._dtype = dtype

    def __call__(self, rows: Rows) -> Rows:
        # uint8 with zero point 128: without AMX, oneDNN has only its reference kernel for signed activations.
        output: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows.values, 1.0, 128, self._packed, self._scale, self._zero_points, None,
            1.0, 0, self._dtype, "none", [], "",
        )  # fmt: skip
        return Rows(output, rows.scale)


@dataclass(frozen=True, slots=True)
class Layer:
    """Linear layers with the same input are one: query, key and value are `qkv`, gate and up `gate_up`."""

    qkv: Linear
    output: Linear
    gate_up: Linear
    down: Linear
    input_norm: Tensor
    post_norm: Tensor
    qk_norm: Tensor  # (num_heads + num_kv_heads, head_dim)
    qkv_bias: Tensor | None = None  # (outputs,)


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight as a library of kernels multiplies it (`layout.h`).

    scale, offset: of each output of an int8 weight, in the order of the panels.
    """

    panels: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None


Weight = Tensor | Int8Weight | PackedWeight


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """The weights of a `Layer`: (outputs, inputs) of its linear layers, and its norms.

    The linear layers are all float, all int8 or all packed.

    qk_norm: ones for layers without such norms.
    """

    qkv: Weight
    output: Weight
    gate_up: Weight
    down: Weight
    input_norm: Tensor
    post_norm: Tensor
    qk_norm: Tensor
    qkv_bias: Tensor | None = None


def float_layers(network: Qwen3Reranker) -> list[Layer]:
    """The network's layers. Rearranges its weights in place: they become views, and the network still works."""
    return [layer_of(layer_weights(layer), network.norm.weight.dtype) for layer in network.layers]


def take_weights(network: Qwen3Reranker) -> Iterator[LayerWeights]:
    """The weights of each layer, which leaves the network, so that its memory is freed when the weights are dropped."""
    layers = list(network.layers)
    network.layers = nn.ModuleList()
    while layers:
        yield layer_weights(layers.pop(0))


def layer_weights(layer: nn.Module) -> LayerWeights:
    """The weights of one layer, concatenated as `Layer` needs them."""
    assert isinstance(layer, DecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        output=attention.o_proj.weight,
        gate_up=_joined(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj.weight,
        input_norm=layer.input_layernorm.weight,
        post_norm=layer.post_attention_layernorm.weight,
        qk_norm=_head_norms(attention),
        qkv_bias=_joined_bias(attention.q_proj, attention.k_proj, attention.v_proj),
    )


def layer_of(weights: LayerWeights, dtype: torch.dtype) -> Layer:
    """A layer of PyTorch's products. dtype: of everything but int8 weights."""

    def linear(weight: Weight) -> Linear:
        assert not isinstance(weight, PackedWeight), "This is a bug: PyTorch cannot multiply packed weights."
        return Int8Linear(weight, dtype) if isinstance(weight, Int8Weight) else FloatLinear(weight)

    return Layer(
        qkv=linear(weights.qkv),
        output=linear(weights.output),
        gate_up=linear(weights.gate_up),
        down=linear(weights.down),
        input_norm=weights.input_norm,
        post_norm=weights.post_norm,
        qk_norm=weights.qk_norm,
        qkv_bias=weights.qkv_bias,
    )


def _joined(*parts: nn.Linear) -> Tensor:
    """Concatenates weights. The originals become views of the result, so that no memory is used twice."""
    joined = torch.cat([part.weight for part in parts])
    first = 0
    for part in parts:
        part.weight = nn.Parameter(joined[first : first + part.out_features], requires_grad=False)
        first += part.out_features
    return joined


def _joined_bias(*parts: nn.Linear) -> Tensor | None:
    biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
    return torch.cat(biases) if biases else None


def _head_norms(attention: Attention) -> Tensor:
    """(num_heads + num_kv_heads, head_dim)."""
    num_heads = attention.q_proj.out_features // attention.head_dim
    num_kv_heads = attention.k_proj.out_features // attention.head_dim
    if isinstance(attention.q_norm, nn.Identity) or isinstance(attention.k_norm, nn.Identity):
        return attention.q_proj.weight.new_ones(num_heads + num_kv_heads, attention.head_dim)
    return torch.cat([attention.q_norm.weight.expand(num_heads, -1), attention.k_norm.weight.expand(num_kv_heads, -1)])
