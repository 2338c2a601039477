"""How fast this processor multiplies matrices in each dtype, by a measurement.

The flags of a processor say little about rates: an Intel processor with AVX512_BF16 multiplies bfloat16 slower than
float32 where a virtual machine hides its AMX.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.qwen3.linear import Int8Linear, Int8Weight
from rerankd.engine.qwen3.ops import quantized

ROWS, INPUTS, OUTPUTS = 256, 1024, 2048
"""A product as in the 0.6B: 1.1 GFLOP, which the slowest emulated bfloat16 computes in 0.07 s on a core."""

MIN_CALLS, MAX_CALLS = 3, 6
MAX_SECONDS = 0.04
"""Per dtype. After the first three calls, none begins later: one alone may have waited for a busy core."""

TOO_SLOW_S = 0.15
"""No third call of a dtype that is emulated."""

BFLOAT16_SETS = {"avx512_bf16", "amx_bf16", "bf16"}
ROUNDS = 3
"""With one of these sets, both are measured until bfloat16 is as fast as float32, at most so often: one loaded moment
does not decide for the life of the process."""


@dataclass(frozen=True, slots=True)
class ProductRates:
    """GFLOP/s, or GOP/s for int8, with all threads of torch. int8: None without int8 products."""

    float32: float
    bfloat16: float
    int8: float | None


@cache
def product_rates(with_int8: bool) -> ProductRates:
    """Measures one product in each dtype on the CPU, in 0.3 s at most on an idle core.

    Args:
        with_int8: the processor has int8 products.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, INPUTS, generator=generator)
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator)
    float32 = bfloat16 = 0.0
    for _ in range(ROUNDS if BFLOAT16_SETS.intersection(instruction_sets()) else 1):
        float32 = max(float32, _float_rate(rows, weight))
        bfloat16 = max(bfloat16, _float_rate(rows.bfloat16(), weight.bfloat16()))
        if bfloat16 >= float32:
            break
    return ProductRates(
        float32=float32,
        bfloat16=bfloat16,
        int8=_int8_rate(rows, weight) if with_int8 else None,
    )


def _float_rate(rows: torch.Tensor, weight: torch.Tensor) -> float:
    return _rate(lambda: F.linear(rows, weight))


def _int8_rate(rows: torch.Tensor, weight: torch.Tensor) -> float:
    # With bfloat16 results, oneDNN has only its reference kernel on AVX2.
    linear, given = Int8Linear(Int8Weight.of(weight), torch.float32), quantized(rows)
    return _rate(lambda: linear(given))


@torch.inference_mode()
def _rate(multiply: Callable[[], object]) -> float:
    """The rate of the fastest call. The first call also compiles the product."""
    best = float("inf")
    began = time.perf_counter()
    for number in range(1, MAX_CALLS + 1):
        started = time.perf_counter()
        multiply()
        ended = time.perf_counter()
        best = min(best, ended - started)
        spent = ended - began
        if (number > 1 and spent > TOO_SLOW_S) or (number >= MIN_CALLS and spent > MAX_SECONDS):
            break
    return 2 * ROWS * INPUTS * OUTPUTS / best / 1e9
