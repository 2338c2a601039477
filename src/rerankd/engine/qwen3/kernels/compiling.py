"""Compiles the library of one kind of kernels, and names it by its source. A wheel's build runs this without torch."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from rerankd.engine.loading.checksums import checksum
from rerankd.engine.qwen3.kernels.kinds import Kind

FOLDER = Path(__file__).parent
INSTALLED = FOLDER / "installed"
"""Where a wheel has the libraries that were compiled with it."""

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC", "-w")


def find_compiler() -> str | None:
    """The path of a C++ compiler."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def source_digest(kind: Kind, compiler: str = "") -> str:
    """16 hex digits that change with the source, the flags or the compiler."""
    sources = b"".join(file.read_bytes() for file in sorted(FOLDER.glob("*.h")))
    made_from = (sources, _source(kind).read_bytes(), FLAGS, kind.flags, compiler)
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def compile_kernels(kind: Kind, compiler: str, library: Path) -> None:
    """Compiles the library of a kind for this machine.

    Raises:
        CalledProcessError: the compiler failed; it has its output.
    """
    _run(compiler, *FLAGS, *kind.flags, str(_source(kind)), "-o", str(library))


def compile_installed(kind: Kind, compiler: str, folder: Path) -> Path:
    """Compiles a library for a wheel. Its name has the digest of its source and its own checksum.

    The library names no libgomp, whose functions it calls: it gets them from the process, where torch has loaded one.
    The file name of torch's differs between its builds, and a second one would have threads of its own.

    Raises:
        CalledProcessError: the compiler failed; it has its output.
        OSError: the folder is not writable.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:
        compiled, linked = Path(name) / "kernels.o", Path(name) / "kernels.so"
        _run(compiler, *FLAGS, *kind.flags, "-c", str(_source(kind)), "-o", str(compiled))
        _run(compiler, "-shared", "-s", str(compiled), "-o", str(linked))
        return linked.rename(folder / f"{kind.name}-{source_digest(kind)}-{checksum(linked)}.so")


def find_installed(kind: Kind) -> list[Path]:
    """The libraries of a kind that were compiled from these sources."""
    return sorted(INSTALLED.glob(f"{kind.name}-{source_digest(kind)}-*.so"))


def is_intact(library: Path) -> bool:
    """Whether a library has the checksum in its name. Raises OSError if it cannot be read."""
    return library.stem.endswith(f"-{checksum(library)}")


def _source(kind: Kind) -> Path:
    return FOLDER / f"kind_{kind.name}.cpp"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
