"""On a processor with AMX: the hardware's tiles and the emulated ones give the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from support.amx import HeadRows, Operands, attention, hardware_tiles, norm_rope

QUANTIZED = pytest.mark.parametrize("quantized", [False, True], ids=["bfloat16", "int8"])


def same_bits(compute: Callable[[], Tensor]) -> bool:
    emulated = compute()
    with hardware_tiles():
        return torch.equal(compute(), emulated)


@QUANTIZED
@pytest.mark.parametrize("num_rows", [1, 17, 33, 500])
@pytest.mark.parametrize(("outputs", "inputs"), [(48, 96), (1024, 3072)])
def test_products(quantized: bool, num_rows: int, outputs: int, inputs: int) -> None:
    operands = Operands.random(num_rows, outputs, inputs, quantized)
    x = torch.randn(num_rows, outputs, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert same_bits(lambda: operands.added_to(x, num_threads=2))


@QUANTIZED
def test_silu_times_up(quantized: bool) -> None:
    assert same_bits(Operands.random(100, 6144, 1024, quantized).silu_mul)


@QUANTIZED
def test_norm_and_rope(quantized: bool) -> None:
    operands = Operands.random(100, 8 * 128, 1024, quantized)
    weights, angles = torch.ones(6, 128).bfloat16(), torch.arange(6400.0).view(100, 64) / 1000

    def compute() -> Tensor:
        heads = HeadRows.empty(4, 2, 100)
        norm_rope(operands, heads, weights, angles.cos(), angles.sin())
        return torch.cat([heads.query, heads.key, heads.value])

    assert same_bits(compute)


@pytest.mark.parametrize("length", [1, 50, 700])
def test_attention(length: int) -> None:
    random = torch.Generator().manual_seed(length)
    heads = HeadRows(*(torch.randn(count, length, 128, generator=random).bfloat16() for count in (4, 2, 2)))
    key, value = (torch.randn(77, 2, 128, generator=random).bfloat16() for _ in range(2))
    assert same_bits(lambda: attention(heads, [(key, value)], [(0, 0, length, 0, length)], num_threads=2))


def test_subnormals() -> None:
    rows = torch.full((16, 64), 1e-20).bfloat16()
    rows[:8] = 1e-39
    weight = torch.full((32, 64), 1e-19).bfloat16()
    assert same_bits(lambda: Operands(rows, weight).added_to(torch.zeros(16, 32).bfloat16()))
