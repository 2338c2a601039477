"""Chooses the device, and sets up its threads."""

from __future__ import annotations

import ctypes
import getpass
import os
import platform
import tempfile
from dataclasses import dataclass

import torch

from rerankd.engine.loading.processors import num_processors
from rerankd.errors import SettingsError

X86_SETS = ("avx2", "avx_vnni", "avx512_f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
            "amx_int8", "amx_bf16", "amx_fp16")  # fmt: skip
ARM_SETS = ("neon", "dot", "i8mm", "bf16", "sve", "sve2", "sme", "sme2")

CACHED_SHAPES = "64"
"""Compiling the four shapes of a layer again takes about 10 ms; a batch takes about 500."""


@dataclass(frozen=True, slots=True)
class Execution:
    """Where and how a model computes. deterministic: a logit has the same bits in any batch."""

    device: torch.device
    dtype: torch.dtype
    deterministic: bool = False


def choose_device(name: str) -> torch.device:
    """`auto` = CUDA, else MPS, else CPU; anything else as torch names it (`cpu`, `cuda:1`, `mps`).

    Raises:
        SettingsError: this machine has no such device.
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


def prepare_cpu() -> None:
    """Limits torch's threads to the available processors, and oneDNN's cache of compiled code to a few shapes.

    Threads beyond the available processors only wait for each other. torch counts the processors of the machine, but a
    container often has a share of them (cgroup v2: cpu.max). oneDNN caches 0.6 MB of code for each shape, 1,024 shapes
    by default, and nearly every packed batch has a new number of rows.
    """
    _spare_torch_the_user()
    os.environ.setdefault("LRU_CACHE_CAPACITY", CACHED_SHAPES)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", CACHED_SHAPES)
    available = num_processors()
    if available < torch.get_num_threads():
        torch.set_num_threads(available)


def _spare_torch_the_user() -> None:
    """Names a cache folder for torch's compiler, because its import fails if it cannot choose one itself.

    Its default needs a user name and a writable temporary folder; a container may have neither. rerankd compiles
    nothing with it, so nothing is written there.
    """
    try:
        getpass.getuser()
        tempfile.gettempdir()
    except (OSError, KeyError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.sep)  # it must exist


def return_freed_memory() -> None:
    """Returns freed memory to the system. After loading int8 weights, glibc holds more of it than the weights take."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def instruction_sets() -> list[str]:
    """The processor's extensions for matrix multiplication, as torch reports them."""
    return [name for name in (*X86_SETS, *ARM_SETS) if torch.cpu.get_capabilities().get(name) is True]


def describe_device(device: torch.device) -> str:
    """A readable name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, {torch.get_num_threads()} threads"
    return str(device)
