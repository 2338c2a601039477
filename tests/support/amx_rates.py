"""How fast the parts of the AMX kernels are: `python -m support.amx_rates`, with tests/ in PYTHONPATH.

One thread, its processor time, the best of some repeats, random data (zeros are 25 % faster), weights from memory.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch

from support.amx import HeadRows, Operands, amx_parts, at, attention_call, hardware_tiles

SHAPES = {"qkv": (4096, 1024), "output": (1024, 2048), "gate_up": (6144, 1024), "down": (1024, 3072)}
"""(outputs, inputs) of the 0.6B."""

ATTENTION = {"A": [114] * 4, "B": [541], "C": [39] * 13, "1 x 1509": [1432], "1 x 8000": [7923]}
"""The lengths of documents behind a prefix of 77 tokens."""

COLD_BYTES = 64_000_000


def rate(operations: float, compute: Callable[[int], None], repeats: int) -> float:
    """Thousand millions of operations a second of processor time."""
    seconds = []
    for index in range(repeats + 1):
        start = time.thread_time()
        compute(index)
        seconds.append(time.thread_time() - start)
    return operations / min(seconds[1:]) / 1e9


def product_rate(name: str, num_rows: int, quantized: bool, repeats: int) -> float:
    """qkv with RMSNorm and RoPE, gate_up with SiLU, the others with the residual."""
    outputs, inputs = SHAPES[name]
    operands = Operands.random(num_rows, outputs, inputs, quantized)
    product, tensors = operands.product()
    panels = tensors[1]
    assert panels is not None
    cold = [panels.clone() for _ in range(COLD_BYTES // panels.nbytes + 1)]
    x, heads = torch.zeros(num_rows + 32, outputs).bfloat16(), HeadRows.empty(16, 8, num_rows)
    head_pointers = heads.pointers()
    norms, angles = torch.ones(24, 128).bfloat16(), torch.zeros(num_rows, 64)
    library = amx_parts()

    def compute(index: int) -> None:
        product.panels = at(cold[index % len(cold)])
        if name == "qkv":
            rope = at(norms), at(angles), at(angles), ctypes.c_float(1e-6)
            library.norm_rope_product(ctypes.byref(product), ctypes.byref(head_pointers), *rope)
        else:
            library["silu_product" if name == "gate_up" else "add_product"](ctypes.byref(product), at(x))

    return rate(2 * num_rows * outputs * inputs, compute, repeats)


def attention_rate(lengths: list[int], repeats: int) -> float:
    """Useful operations only: a query times the keys that it sees."""
    num_rows, random = sum(lengths), torch.Generator().manual_seed(0)
    heads = HeadRows(*(torch.randn(count, num_rows + 16, 128, generator=random).bfloat16() for count in (16, 8, 8)))
    prefix = tuple(torch.randn(77, 8, 128, generator=random).bfloat16() for _ in range(2))
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    sequences = [(0, start, length, start, length) for start, length in zip(starts, lengths, strict=True)]
    call, _ = attention_call(heads, [(prefix[0], prefix[1])], sequences)
    seen = sum(length * 77 + length * (length + 1) / 2 for length in lengths)
    return rate(4 * 128 * 16 * seen, lambda index: call(), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--emulated", action="store_true", help="without AMX: the figures mean nothing")
    parser.add_argument("--rows", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with nullcontext() if options.emulated else hardware_tiles():
        for dtype, quantized in (("bfloat16 GFLOP/s", False), ("int8 GOP/s", True)):
            for num_rows in options.rows:
                rates = (f"{name} {product_rate(name, num_rows, quantized, options.repeats):.0f}" for name in SHAPES)
                print(f"{dtype}, {num_rows} rows:", ", ".join(rates), flush=True)
        rates = (f"{name} {attention_rate(lengths, options.repeats):.0f}" for name, lengths in ATTENTION.items())
        print("attention GFLOP/s:", ", ".join(rates), flush=True)


if __name__ == "__main__":
    main()
