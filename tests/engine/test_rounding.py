"""Weights are rounded to int8 by one step at most, and so that the errors of values and `output` nearly cancel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rerankd.engine.qwen3.layers import TorchLayers
from rerankd.engine.qwen3.linear import Int8Weight, LayerWeights, Weight, layer_of
from rerankd.engine.qwen3.model import Qwen3Config, rope_angles
from rerankd.engine.qwen3.ops import TorchOperations
from rerankd.engine.qwen3.packed import Packed
from rerankd.engine.qwen3.rounding import quantized

SMALL = Qwen3Config(
    vocab_size=8,
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=1,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    rms_norm_eps=1e-6,
    rope_theta=1e6,
    max_position_embeddings=40_960,
    tie_word_embeddings=True,
)

REAL = replace(
    SMALL,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=2,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
)
"""The widths of the 0.6B."""

LINEARS = ("qkv", "output", "gate_up", "down")


def random_layer(config: Qwen3Config, seed: int) -> LayerWeights:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.02

    heads = config.num_attention_heads, config.num_key_value_heads
    return LayerWeights(
        qkv=random((heads[0] + 2 * heads[1]) * config.head_dim, config.hidden_size),
        output=random(config.hidden_size, heads[0] * config.head_dim),
        gate_up=random(2 * config.intermediate_size, config.hidden_size),
        down=random(config.hidden_size, config.intermediate_size),
        input_norm=torch.rand(config.hidden_size, generator=generator) + 0.5,
        post_norm=torch.ones(config.hidden_size),
        qk_norm=torch.ones(sum(heads), config.head_dim),
    )


def nearest(weights: LayerWeights, config: Qwen3Config) -> LayerWeights:
    changed = {name: Int8Weight.of(tensor(getattr(weights, name))) for name in LINEARS}
    return replace(weights, **changed)  # type: ignore[arg-type]


def tensor(weight: Weight) -> Tensor:
    """In float32."""
    if isinstance(weight, Int8Weight):
        return weight.values * weight.scale[:, None]
    assert isinstance(weight, Tensor)
    return weight.float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(6, 2), (4, 4), (8, 1)])
def test_a_weight_is_rounded_by_less_than_a_step(dtype: torch.dtype, num_heads: int, num_kv_heads: int) -> None:
    config = replace(SMALL, num_attention_heads=num_heads, num_key_value_heads=num_kv_heads)
    weights = random_layer(config, 0)
    changed = {name: tensor(getattr(weights, name)).to(dtype) for name in LINEARS}
    for name in ("qkv", "output"):
        changed[name][::7] *= 1000  # rows of another size
        changed[name][5] = 0
    weights = replace(weights, **changed)
    rounded = quantized(weights, config)
    for name in LINEARS:
        given: Int8Weight = getattr(rounded, name)
        wanted = tensor(getattr(weights, name))
        assert given.values.shape == wanted.shape and given.values.abs().max() == 127
        assert torch.equal(given.scale, wanted.abs().amax(1) / 127)
        assert ((tensor(given) - wanted).abs() <= given.scale[:, None] * 1.0001).all()


def test_the_same_weights_become_the_same_bytes() -> None:
    first, second = (quantized(random_layer(REAL, 0), REAL) for _ in range(2))
    for name in LINEARS:
        assert torch.equal(getattr(first, name).values, getattr(second, name).values)


def through_values(weights: LayerWeights, config: Qwen3Config, x: Tensor) -> Tensor:
    """What attention adds where all tokens have the same input: x is (inputs, columns)."""
    values = tensor(weights.qkv)[-config.num_key_value_heads * config.head_dim :] @ x
    heads = values.view(config.num_key_value_heads, 1, config.head_dim, -1)
    groups = config.num_attention_heads // config.num_key_value_heads
    return tensor(weights.output) @ heads.expand(-1, groups, -1, -1).reshape(-1, x.shape[1])


def test_what_all_tokens_have_in_common_passes_attention_with_less_error() -> None:
    weights = random_layer(REAL, 0)
    x = torch.randn(REAL.hidden_size, 200, generator=torch.Generator().manual_seed(1)) * weights.input_norm[:, None]
    exact = through_values(weights, REAL, x)
    before, after = (
        (through_values(round_(weights, REAL), REAL, x) - exact).square().mean() for round_ in (nearest, quantized)
    )
    assert after < before / 2  # of the squares


def test_layers_are_nearer_to_float() -> None:
    """Two layers over tokens that have a part in common, as after the first layers of any network."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, REAL.hidden_size, generator=generator) + torch.randn(REAL.hidden_size, generator=generator)
    layers = [random_layer(REAL, seed) for seed in (3, 4)]
    exact = run(layers, x)
    before, after = (
        (run([round_(one, REAL) for one in layers], x) - exact).square().mean() for round_ in (nearest, quantized)
    )
    assert after < before * 0.8


def run(layers: list[LayerWeights], x: Tensor) -> Tensor:
    """The last row's residual stream, with exact inputs: only the weights are rounded."""
    plain = [
        layer_of(replace(one, **{name: tensor(getattr(one, name)) for name in LINEARS}), torch.float32)
        for one in layers
    ]
    angles = rope_angles(torch.arange(len(x)), REAL)
    base = torch.empty(REAL.num_hidden_layers, 2, 0, REAL.num_key_value_heads, REAL.head_dim)
    with torch.inference_mode():
        return TorchLayers(REAL, plain, TorchOperations())(
            x.clone(), angles.cos(), angles.sin(), Packed.of([len(x)], [base], [])
        )
