"""Which device computes, and in which dtype."""

from __future__ import annotations

import ctypes
import getpass
import math
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from rerankd.errors import SettingsError

INSTRUCTION_SETS = (
    *("avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
    *("neon", "dot", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
)
BFLOAT16_SETS = {"avx512_bf16", "amx_bf16", "bf16"}

KEPT_PRODUCTS = "64"
"""Shapes; compiling the four shapes of a layer again takes some 10 ms, a batch some 500."""

INT8_SETS = {"avx_vnni", "avx512_vnni", "amx_int8"}
"""Without one of these, oneDNN's int8 products are slow, or saturate at 16 bits."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how a model computes. deterministic: the same bits for a prompt whatever else is in its batch."""

    device: torch.device
    dtype: torch.dtype
    deterministic: bool = False


def choose_device(name: str) -> torch.device:
    """`auto` = CUDA, else MPS, else CPU; anything else as torch names it (`cpu`, `cuda:1`, `mps`).

    Raises:
        SettingsError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"The device {name!r} cannot be used here: {reason}") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` = bfloat16 where the hardware multiplies it natively, else float32.

    `int8` is what `auto` is where int8 products cannot be had: see `lacks_int8`.
    """
    if name != "auto" and not (name == "int8" and lacks_int8(device)):
        return DTYPES[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = bool(BFLOAT16_SETS.intersection(instruction_sets()))
    else:
        native = False
    return torch.bfloat16 if native else torch.float32


def lacks_int8(device: torch.device) -> str | None:
    """Why int8 products cannot be had on this device; None where they can."""
    if device.type != "cpu":
        return f"int8 runs on CPUs only, not on {device}"
    if not INT8_SETS.intersection(instruction_sets()):
        return "int8 needs a processor with VNNI or AMX"
    return None


def prepare_cpu() -> None:
    """No more threads than processors, and no more memory than needed for oneDNN's compiled products.

    More threads than this process may use only wait for each other; torch counts the machine's processors, and a
    container often has a share of them (cgroup v2: cpu.max). oneDNN keeps 0.6 MB of code for each shape of a product
    that it met, 1,024 of them by default, and packed batches have ever new numbers of rows.
    """
    _spare_torch_the_user()
    os.environ.setdefault("LRU_CACHE_CAPACITY", KEPT_PRODUCTS)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_PRODUCTS)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        available = min(available, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or the quota is "max"
        pass
    if available < torch.get_num_threads():
        torch.set_num_threads(max(1, available))


def _spare_torch_the_user() -> None:
    """Names a cache folder for torch's compiler, which fails to load where it has to invent one and cannot.

    It wants a user's name and a writable folder for temporary files; a container may have neither. Nothing is compiled
    with it here, so nothing is written there.
    """
    try:
        getpass.getuser()
        tempfile.gettempdir()
    except (OSError, KeyError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.sep)  # it must exist


def return_freed_memory() -> None:
    """Gives the system back what loading freed: glibc keeps it, for int8 more than the weights take in the end."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def instruction_sets() -> list[str]:
    """Those of the processor's extensions that matter to matrix products, as torch reports them."""
    return [name for name in INSTRUCTION_SETS if torch.cpu.get_capabilities().get(name) is True]


def describe_device(device: torch.device) -> str:
    """The device's name for a person."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, {torch.get_num_threads()} threads"
    return str(device)
