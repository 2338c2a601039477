"""Products with AMX: packing, loop orders, tails and epilogues, with emulated tiles."""

from __future__ import annotations

import ctypes

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.amx import HeadRows, Operands, amx_parts, at, norm_rope, to_panels

ROWS = [1, 15, 16, 17, 31, 33, 500]
QUANTIZED = pytest.mark.parametrize("quantized", [False, True], ids=["bfloat16", "int8"])
REAL_SHAPES = [(4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072)]
"""(outputs, inputs) of the 0.6B: qkv, output, gate_up, down."""


def in_tile_order(operands: Operands) -> Tensor:
    """The sums to the bit: for each line of inputs an even and an odd chain, added to the sum so far."""
    total = torch.zeros(len(operands.rows), len(operands.weight))
    rows, weight = operands.rows.float(), operands.weight.float()
    for line in range(0, rows.shape[1], 32):
        chains = [torch.zeros_like(total), torch.zeros_like(total)]
        for k in range(line, min(line + 32, rows.shape[1])):
            chains[k % 2] = chains[k % 2] + rows[:, k, None] * weight[None, :, k]
        total = total + (chains[0] + chains[1])
    return total


def bfloat16_step(x: Tensor) -> Tensor:
    """The distance between neighbouring bfloat16 numbers around x."""
    return torch.finfo(torch.bfloat16).eps * x.abs().clamp_min(1e-3)


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 32), (64, 96), (48, 512), (96, 1056)])
def test_bfloat16_sums_are_those_of_the_tiles_order_to_the_bit(num_rows: int, outputs: int, inputs: int) -> None:
    operands = Operands.random(num_rows, outputs, inputs, quantized=False)
    added = operands.added_to(torch.zeros(num_rows, outputs).bfloat16())
    assert torch.equal(added, in_tile_order(operands).bfloat16())


@pytest.mark.parametrize("num_rows", ROWS)
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 64), (64, 96), (48, 1024), (96, 2080)])
def test_int8_sums_are_exact(num_rows: int, outputs: int, inputs: int) -> None:
    operands = Operands.random(num_rows, outputs, inputs, quantized=True)
    added = operands.added_to(torch.zeros(num_rows, outputs).bfloat16())
    assert ((added.double() - operands.exact).abs() <= bfloat16_step(operands.exact)).all()


@QUANTIZED
@pytest.mark.parametrize(("outputs", "inputs"), REAL_SHAPES)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_real_shapes(quantized: bool, outputs: int, inputs: int, num_threads: int) -> None:
    operands = Operands.random(500, outputs, inputs, quantized)
    x = torch.randn(500, outputs, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = x.double() + operands.exact
    added = operands.added_to(x, num_threads)
    assert ((added.double() - expected).abs() <= bfloat16_step(expected)).all()
    assert (expected - x.double()).abs().max() > 1, "adding nothing would pass"


@QUANTIZED
def test_a_row_has_the_same_bits_in_any_batch(quantized: bool) -> None:
    """600 rows of 3,072 inputs take the K blocks outside and two chunks of rows, few rows the panels."""
    operands = Operands.random(600, 1024, 3072, quantized)
    x = torch.randn(600, 1024, generator=torch.Generator().manual_seed(1)).bfloat16()
    together = operands.added_to(x)
    for num_rows in (1, 16, 17, 100):
        assert torch.equal(operands.first(num_rows).added_to(x[:num_rows]), together[:num_rows])


@QUANTIZED
@pytest.mark.parametrize("num_rows", ROWS)
def test_silu_times_up(quantized: bool, num_rows: int) -> None:
    operands = Operands.random(num_rows, 192, 160, quantized)
    gate, up = operands.exact.view(num_rows, -1, 2, 16).unbind(2)
    expected = (F.silu(gate) * up).flatten(1)
    assert ((operands.silu_mul().double() - expected).abs() <= bfloat16_step(expected)).all()


@pytest.mark.parametrize("gate", [-300.0, -90.0, -20.0, 0.0, 90.0, 3e4])
def test_silu_of_extreme_gates(gate: float) -> None:
    weight = torch.zeros(32, 32).bfloat16()
    weight[:16, 0], weight[16:, 1] = gate, 1
    rows = torch.ones(1, 32).bfloat16()
    expected = F.silu(torch.tensor(gate).bfloat16().double())
    assert Operands(rows, weight).silu_mul().double() == pytest.approx(expected.item(), rel=0.01, abs=1e-6)


@QUANTIZED
@pytest.mark.parametrize("num_rows", ROWS)
def test_norm_and_rope_of_heads(quantized: bool, num_rows: int) -> None:
    num_heads, num_kv_heads, inputs = 4, 2, 96
    random = torch.Generator().manual_seed(2)
    operands = Operands.random(num_rows, (num_heads + 2 * num_kv_heads) * 128, inputs, quantized)
    weights = (torch.rand(num_heads + num_kv_heads, 128, generator=random) + 0.5).bfloat16()
    angles = torch.rand(num_rows, 64, generator=random) * 6
    heads = HeadRows.empty(num_heads, num_kv_heads, num_rows + 5)
    norm_rope(operands, heads, weights, angles.cos(), angles.sin())
    expected = operands.exact.view(num_rows, -1, 128).transpose(0, 1)  # (heads, rows, 128)
    rotated, value = expected[: num_heads + num_kv_heads], expected[num_heads + num_kv_heads :]
    normed = rotated * torch.rsqrt(rotated.square().mean(-1, keepdim=True) + 1e-6) * weights.double()[:, None]
    left, right = normed.chunk(2, dim=-1)
    cos, sin = angles.double().cos(), angles.double().sin()
    rotated = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
    for got, want in (
        (heads.query, rotated[:num_heads]), (heads.key, rotated[num_heads:]), (heads.value, value)
    ):  # fmt: skip
        assert ((got[:, :num_rows].double() - want).abs() <= bfloat16_step(want) + 1e-4).all()
        assert got[:, num_rows:].isnan().all(), "rows behind the last are not written"


@QUANTIZED
@pytest.mark.parametrize("halves", [False, True])
def test_packed_weights_have_the_documented_layout(quantized: bool, halves: bool) -> None:
    operands = Operands.random(1, 96, 80, quantized)
    weight = operands.weight
    expected = to_panels(weight if not halves else weight.view(2, -1, 16, 80).transpose(0, 1).reshape(96, 80))
    assert torch.equal(packed(weight, halves), expected.flatten())


def packed(weight: Tensor, halves: bool) -> Tensor:
    """By pack_weight, as at load."""
    outputs, inputs = weight.shape
    quantized = weight.dtype == torch.int8
    shape = ctypes.c_int64(outputs), ctypes.c_int64(inputs)
    size = amx_parts().packed_size
    size.restype = ctypes.c_int64
    panels = torch.zeros(size(*shape, int(quantized)), dtype=weight.dtype)
    scale, scales, offsets = torch.ones(outputs), torch.zeros(outputs), torch.zeros(outputs, dtype=torch.int32)
    amx_parts().pack_weight(
        at(weight), at(scale), *shape, int(halves), int(quantized), at(panels), at(scales), at(offsets),
        ctypes.c_int64(2),
    )  # fmt: skip
    return panels
