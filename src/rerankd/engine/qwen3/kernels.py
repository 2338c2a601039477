"""Operations for bfloat16 on CPU, in C++ (kernels.cpp), compiled on the user's machine for its processor.

Without a C++ compiler or AVX512_BF16 there are no kernels, and the slower `TorchOperations` serve.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.qwen3.model import Qwen3Config
from rerankd.engine.qwen3.ops import Rows, Segments

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-w")
HEAD_DIM = 128
LANES = 16


def kernels_fit(config: Qwen3Config) -> bool:
    """Whether the kernels can compute this shape. They can compute every published one."""
    return config.head_dim == HEAD_DIM and config.hidden_size % LANES == 0 and config.intermediate_size % LANES == 0


def build_kernels(quantize: bool = False) -> KernelOperations | None:
    """Compiles once per processor and source, in a few seconds. Logs the reason and returns None if that fails."""
    if platform.system() != "Linux" or not torch.cpu.get_capabilities().get("avx512_bf16"):
        logger.info("No kernels: they need Linux on a processor with AVX512_BF16. The plain operations run.")
        return None
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None:
        logger.warning("No kernels: there is no C++ compiler (apt install g++). The plain operations run, slower.")
        return None
    try:
        return KernelOperations(_library(compiler), quantize)
    except subprocess.CalledProcessError as error:
        reason = f"{compiler} failed ({(error.stderr or str(error))[:500]})"
    except OSError as error:  # no writable folder, no space, or a folder mounted noexec
        reason = f"they cannot be compiled or loaded ({error})"
    logger.warning("No kernels: %s. The plain operations run, slower.", reason)
    return None


def _library(compiler: str) -> ctypes.CDLL:
    """The library from the disk cache, else a new one; for this process only if the disk cache cannot be used.

    Raises:
        CalledProcessError: the compiler failed.
        OSError: it cannot be written or loaded.
    """
    processor = str(sorted(torch.cpu.get_capabilities().items()))
    key = hashlib.sha256(f"{SOURCE.read_text()}{FLAGS}{compiler}{processor}".encode()).hexdigest()[:16]
    name = f"kernels-{key}"
    if kept := find_kept(name, ".so"):
        return ctypes.CDLL(str(kept))
    try:
        return ctypes.CDLL(str(keep(name, ".so", lambda path: _compile(compiler, path))))
    except NotKept:
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / "kernels.so"
            _compile(compiler, built)
            return ctypes.CDLL(str(built))


def _compile(compiler: str, library: Path) -> None:
    command = [compiler, *FLAGS, str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)


class KernelOperations:
    """Implements `ops.Operations` for contiguous bfloat16 rows and heads of 128.

    Args:
        quantize: return int8 rows to the linear layers.
    """

    def __init__(self, library: ctypes.CDLL, quantize: bool = False) -> None:
        self._library = library
        self._quantize = quantize

    def add_rmsnorm(self, x: Tensor, delta: Rows | None, weight: Tensor, eps: float) -> Rows:
        num_rows, size = x.shape
        output = self._empty_rows(x, num_rows, size)
        self._library.add_rmsnorm(
            _at(x), _at(delta.values if delta else None), _at(delta.scale if delta else None), _at(weight),
            *_to(output), _int(num_rows), _int(size), ctypes.c_float(eps),
        )  # fmt: skip
        return output

    def norm_rope(self, qkv: Rows, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        num_heads, head_dim = weight.shape
        num_rows, size = qkv.values.shape
        self._library.norm_rope(
            _at(qkv.values), _at(qkv.scale), _at(weight), _at(cos), _at(sin),
            _int(num_rows), _int(size), _int(num_heads), _int(head_dim), ctypes.c_float(eps),
        )  # fmt: skip
        return qkv.values.view(num_rows, -1, head_dim)

    def silu_mul(self, gate_up: Rows) -> Rows:
        num_rows, size = gate_up.values.shape[0], gate_up.values.shape[1] // 2
        output = self._empty_rows(gate_up.values, num_rows, size)
        self._library.silu_mul(*(_at(gate_up.values), _at(gate_up.scale)), *_to(output), _int(num_rows), _int(size))
        return output

    def attention(self, query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Rows:
        num_queries, num_heads, head_dim = query.shape
        output = query.new_empty(num_queries, num_heads * head_dim)
        prefixes = segments.prefixes
        self._library.attention(
            _at(query), _at(key), _at(value), _at(output),
            _longs([keys.data_ptr() for keys, _ in prefixes]),
            _longs([values.data_ptr() for _, values in prefixes]),
            _longs([keys.shape[0] for keys, _ in prefixes]),
            _longs(segments.q_offsets),
            _longs(segments.k_offsets),
            _int(len(prefixes)), _int(query.stride(0)), _int(key.stride(0)),
            _int(num_heads), _int(key.shape[1]), _int(head_dim),
        )  # fmt: skip
        if not self._quantize:
            return Rows(output)
        rows = self._empty_rows(output, *output.shape)
        self._library.quantize_rows(_at(output), *_to(rows)[1:], *map(_int, output.shape))
        return rows

    def _empty_rows(self, like: Tensor, num_rows: int, size: int) -> Rows:
        if not self._quantize:
            return Rows(like.new_empty(num_rows, size))
        return Rows(torch.empty(num_rows, size, dtype=torch.uint8), torch.empty(num_rows))


def _to(rows: Rows) -> tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]:
    """The output arguments of a kernel: bfloat16, or bytes and scales."""
    if rows.scale is None:
        return _at(rows.values), _at(None), _at(None)
    return _at(None), _at(rows.values), _at(rows.scale)


def _at(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _int(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _longs(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)
