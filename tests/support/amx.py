"""The AMX kernels with emulated tiles, compiled for this machine, and the layouts of their inputs.

The layouts are written here a second time, with torch's views, so that a test compares two readings of layout.h.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rerankd.engine.qwen3.kernels.compiling import FLAGS, FOLDER
from rerankd.engine.qwen3.kernels.kinds import KINDS

PARTS = Path(__file__).with_name("amx_parts.cpp")
AMX = next(kind for kind in KINDS if kind.name == "amx")
_AVX2 = ("-mavx2", "-mfma")
_HAS_AVX512 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
EMULATED = replace(
    AMX, instruction_sets=frozenset(), flags=("-DEMULATED_TILES", *(AMX.flags if _HAS_AVX512 else _AVX2))
)
"""The same kernels with tiles in memory: slow, and for any x86-64 processor with AVX2."""

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1")
SANITIZED = "RERANKD_TEST_SANITIZED"
"""Set in the process in which tests run with the sanitizers."""

GARBAGE = float("nan")
"""What stands in rows and columns that nothing may read, or whose results nothing may use."""


_hardware = False


@contextmanager
def hardware_tiles() -> Iterator[None]:
    """Within this, `amx_parts` has the tiles of the hardware. Skips on a machine without them."""
    global _hardware
    if not _compiled(hardware=True).is_available():
        pytest.skip("this processor has no AMX, or the system does not permit it")
    _hardware = True
    try:
        yield
    finally:
        _hardware = False


def amx_parts(hardware: bool | None = None) -> ctypes.CDLL:
    """amx_parts.cpp, compiled; skips on a machine that cannot. hardware: with its tiles; None: in `hardware_tiles`."""
    return _compiled(_hardware if hardware is None else hardware)


@functools.cache
def _compiled(hardware: bool) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("c++")
    if platform.machine() != "x86_64" or platform.system() != "Linux" or compiler is None:
        pytest.skip("this machine can have no kernels")
    sanitizers = SANITIZERS if os.environ.get(SANITIZED) else ()
    kind = AMX if hardware else EMULATED
    flags = [*FLAGS, *kind.flags, *sanitizers, f"-I{FOLDER}"]
    sources = [*sorted(FOLDER.glob("*.h")), FOLDER / "kind_amx.cpp", PARTS]
    key = hashlib.sha256(f"{flags}{[path.read_text() for path in sources]}".encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"rerankd-amx-{os.getuid()}-{key}.so"
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, *flags, str(PARTS), "-o", str(made)], check=True)
        made.rename(library)
    return ctypes.CDLL(str(library))


def at(tensor: Tensor | None) -> c_void_p:
    return c_void_p(None if tensor is None else tensor.data_ptr())


def line_of(dtype: torch.dtype) -> int:
    """Values of a line of 64 bytes."""
    return 64 // dtype.itemsize


def garbage(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.full(shape, GARBAGE if dtype.is_floating_point else 77, dtype=dtype)


def to_tiles(x: Tensor) -> Tensor:
    """(rows, inputs) → tiles. Rows are filled up to 16 with garbage, inputs to whole lines with zeros."""
    rows, inputs = x.shape
    line = line_of(x.dtype)
    padded = garbage(-(-rows // 16) * 16, -(-inputs // line) * line, dtype=x.dtype)
    padded[:rows, :inputs], padded[:rows, inputs:] = x, 0
    return padded.view(-1, 16, padded.shape[1] // line, line).transpose(1, 2).contiguous()


def from_tiles(tiles: Tensor, rows: int) -> Tensor:
    """tiles (tiles of rows, lines, 16, values of a line) → (rows, inputs)."""
    return tiles.transpose(1, 2).flatten(0, 1).flatten(1)[:rows]


def to_panels(weight: Tensor) -> Tensor:
    """(outputs, inputs), outputs in the order of the panels, → panels. Filled up with zeros."""
    outputs, inputs = weight.shape
    line = line_of(weight.dtype)
    padded = weight.new_zeros(-(-outputs // 32) * 32, -(-inputs // line) * line)
    padded[:outputs, :inputs] = weight
    group = 4 // weight.dtype.itemsize
    return padded.view(-1, 2, 16, padded.shape[1] // line, 16, group).permute(0, 3, 1, 4, 2, 5).contiguous()


class Product(ctypes.Structure):
    """`Product` of amx_parts.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("rows", "panels")),
        *((name, c_int64) for name in ("num_rows", "num_lines", "outputs")),
        *((name, c_void_p) for name in ("row_scale", "scale", "offset")),
        ("num_threads", c_int64),
    ]


@dataclass
class Operands:
    """Rows and a weight, (outputs, inputs); with scales if they are int8."""

    rows: Tensor
    weight: Tensor
    row_scale: Tensor | None = None
    scale: Tensor | None = None

    @classmethod
    def random(cls, num_rows: int, outputs: int, inputs: int, quantized: bool, seed: int = 0) -> Operands:
        random = torch.Generator().manual_seed(seed)
        if not quantized:
            rows = torch.randn(num_rows, inputs, generator=random).bfloat16()
            return cls(rows, (torch.randn(outputs, inputs, generator=random) / inputs**0.5).bfloat16())
        rows, weight = (
            torch.randint(-127, 128, (size, inputs), generator=random, dtype=torch.int8) for size in (num_rows, outputs)
        )
        scales = (torch.rand(size, generator=random) / 40 + 0.01 for size in (num_rows, outputs))
        return cls(rows, weight, *(scale / inputs**0.25 for scale in scales))

    @property
    def exact(self) -> Tensor:
        """The product in float64."""
        product = self.rows.double() @ self.weight.double().T
        if self.scale is None or self.row_scale is None:
            return product
        return product * self.row_scale.double()[:, None] * self.scale.double()

    def first(self, num_rows: int) -> Operands:
        """The same with the first rows only."""
        return Operands(
            self.rows[:num_rows],
            self.weight,
            None if self.row_scale is None else self.row_scale[:num_rows].clone(),
            self.scale,
        )

    def product(self, num_threads: int = 1) -> tuple[Product, list[Tensor | None]]:
        """The arguments of amx_parts.cpp, and the tensors that they point to."""
        offset = None if self.scale is None else torch.zeros(len(self.weight), dtype=torch.int32)
        tensors = [to_tiles(self.rows), to_panels(self.weight), self.row_scale, self.scale, offset]
        rows, panels, *scales = map(at, tensors)
        num_lines = -(-self.rows.shape[1] // line_of(self.rows.dtype))
        sizes = len(self.rows), num_lines, len(self.weight)
        return Product(rows, panels, *sizes, *scales, num_threads), tensors

    def call(self, name: str, *arguments: object, num_threads: int = 1) -> None:
        """Calls a function of amx_parts.cpp with this product."""
        product, _tensors = self.product(num_threads)
        amx_parts()[name](ctypes.byref(product), *arguments)

    def added_to(self, x: Tensor, num_threads: int = 1) -> Tensor:
        """x + product, bfloat16."""
        x = x.clone()
        self.call("add_product", at(x), num_threads=num_threads)
        return x

    def silu_mul(self) -> Tensor:
        """silu(first 16 outputs) × next 16 of each panel."""
        num_rows, size = len(self.rows), len(self.weight) // 2
        out = to_tiles(garbage(num_rows, size))
        self.call("silu_product", at(out))
        return from_tiles(out, num_rows)[:, :size]


class HeadPointers(ctypes.Structure):
    """`Heads` of epilogue.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("query", "key", "value")),
        *((name, c_int64) for name in ("num_heads", "num_kv_heads", "capacity")),
    ]


@dataclass
class HeadRows:
    """query (num_heads, capacity, 128), key and value (num_kv_heads, capacity, 128)."""

    query: Tensor
    key: Tensor
    value: Tensor

    @classmethod
    def empty(cls, num_heads: int, num_kv_heads: int, capacity: int) -> HeadRows:
        return cls(*(garbage(heads, capacity, 128) for heads in (num_heads, num_kv_heads, num_kv_heads)))

    def pointers(self) -> HeadPointers:
        return HeadPointers(
            at(self.query), at(self.key), at(self.value), len(self.query), len(self.key), self.query.shape[1]
        )


def norm_rope(
    operands: Operands, heads: HeadRows, weights: Tensor, cos: Tensor, sin: Tensor, eps: float = 1e-6
) -> None:
    """RMSNorm and RoPE of the product's query and key heads → heads."""
    pointers = heads.pointers()
    operands.call("norm_rope_product", ctypes.byref(pointers), at(weights), at(cos), at(sin), c_float(eps))


class SequencePointers(ctypes.Structure):
    """`Sequences` of sequences.h."""

    _fields_ = [("prefixes", c_void_p), ("num_prefixes", c_int64), ("sequences", c_void_p), ("num_sequences", c_int64)]


Sequence = tuple[int, int, int, int, int]
"""Its prefix, its first row and number of rows, its first query and number of queries."""


def attention_call(
    heads: HeadRows, prefixes: list[tuple[Tensor, Tensor]], sequences: list[Sequence], num_threads: int = 1
) -> tuple[Callable[[], None], Tensor]:
    """A call of attention, and the tiles that it fills. prefixes: key and value, (length, num_kv_heads, 128)."""
    out = to_tiles(garbage(max(first + count for *_, first, count in sequences), len(heads.query) * 128))
    prefix_rows = torch.tensor([[key.data_ptr(), value.data_ptr(), len(key)] for key, value in prefixes])
    sequence_rows = torch.tensor(sequences)
    pointers = SequencePointers(at(prefix_rows), len(prefixes), at(sequence_rows), len(sequences))
    head_pointers = heads.pointers()

    def call() -> None:
        assert len(prefix_rows) == len(prefixes) and len(sequence_rows)  # alive, like what they point to
        amx_parts().attention(ctypes.byref(head_pointers), ctypes.byref(pointers), at(out), c_int64(num_threads))

    return call, out


def attention(
    heads: HeadRows, prefixes: list[tuple[Tensor, Tensor]], sequences: list[Sequence], num_threads: int = 1
) -> Tensor:
    """Attention of sequences over their prefixes and themselves, (queries, num_heads, 128)."""
    call, out = attention_call(heads, prefixes, sequences, num_threads)
    call()
    num_queries = max(first + count for *_, first, count in sequences)
    return from_tiles(out, num_queries).view(num_queries, -1, 128)
