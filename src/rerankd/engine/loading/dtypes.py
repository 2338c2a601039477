"""In which dtype a model computes."""

from __future__ import annotations

import torch

from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.loading.rates import ProductRates, product_rates

INT8_SETS = {"avx_vnni", "avx512_vnni", "amx_int8"}
"""Without one of these, int8 matrix multiplication in oneDNN is slow, or saturates at 16 bits."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

INT8_GAIN = 1.2
"""The log offers int8 where its products are faster by this factor."""


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` = bfloat16 if the device multiplies it no slower than float32, else float32. On CPUs it is measured.

    `int8` falls back to `auto` on a device without int8: see `lacks_int8`.
    """
    if name != "auto" and not (name == "int8" and lacks_int8(device)):
        return DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        rates = _cpu_rates()
        native = rates.bfloat16 >= rates.float32
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def lacks_int8(device: torch.device) -> str | None:
    """Why this device has no int8; None if it has."""
    if device.type != "cpu":
        return f"int8 runs on CPUs only, not on {device}"
    if not INT8_SETS.intersection(instruction_sets()):
        return "int8 needs a processor with VNNI or AMX"
    return None


def explain_auto() -> str:
    """The choice of `auto` on the CPU, its reason, and the gain of int8: one line for the log."""
    rates = _cpu_rates()
    if rates.bfloat16 >= rates.float32:
        chosen, best = f"bfloat16 ({rates.bfloat16:.0f} GFLOP/s; float32: {rates.float32:.0f})", rates.bfloat16
    else:
        chosen, best = f"float32 ({rates.float32:.0f} GFLOP/s; bfloat16: {rates.bfloat16:.0f})", rates.float32
    line = f"--dtype auto computes in {chosen}, as measured in one product."
    if rates.int8 is None or rates.int8 < INT8_GAIN * best:
        return line
    gain = rates.int8 / best
    return f"{line} --dtype int8 multiplies {gain:.1f} times as fast, and moves scores by a few hundredths."


def _cpu_rates() -> ProductRates:
    return product_rates(lacks_int8(torch.device("cpu")) is None)
