"""The kinds of kernels, best first: what a processor needs for each, and how a compiler makes it.

The build of a wheel reads this without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mfma")
AVX2 = ("-mavx2", "-mfma")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of kernels; its source is `kind_<name>.cpp`.

    dtype_name: of everything but int8 weights. instruction_sets: the processor needs them all, as torch names them.
    flags: the compiler makes code for them. machine: the architecture, as `platform.machine` names it.
    """

    name: str
    dtype_name: str
    instruction_sets: frozenset[str]
    flags: tuple[str, ...]
    machine: str = "x86_64"

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of everything but int8 weights."""
        import torch

        return torch.bfloat16 if self.dtype_name == "bfloat16" else torch.float32


KINDS = (
    Kind(
        "amx",
        "bfloat16",
        frozenset({"amx_bf16", "amx_int8", "avx512_f", "avx512_bf16"}),
        (*AVX512, "-mavx512bf16"),  # the tiles' instructions are written out, and need no flag
    ),
    Kind(
        "avx512_bf16",
        "bfloat16",
        frozenset({"avx512_f", "avx512_vnni", "avx512_bf16"}),
        (*AVX512, "-mavx512bf16"),
    ),
    Kind("avx512_vnni", "float32", frozenset({"avx512_f", "avx512_vnni"}), AVX512),
    Kind("avx_vnni", "float32", frozenset({"avx2", "avx_vnni"}), (*AVX2, "-mavxvnni")),
    Kind("avx2", "float32", frozenset({"avx2"}), AVX2),
    Kind("neon", "float32", frozenset({"neon"}), (), "aarch64"),
)

PLAIN = "plain"
"""The name of no kernels: PyTorch's operations."""
