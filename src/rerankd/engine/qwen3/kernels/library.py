"""The library of one kind of kernels: installed with the package, from the disk cache, or compiled on this machine.

    python -m rerankd.engine.qwen3.kernels.library

compiles every kind of this architecture into the package, for images without a compiler. Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.qwen3.kernels.kinds import KINDS, Kind

FOLDER = Path(__file__).parent
INSTALLED = FOLDER / "installed"
"""Where the libraries are that were compiled with the package."""

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC", "-w")


class NoLibrary(Exception):
    """A kind of kernels cannot run here; the message gives the reason."""


def open_library(kind: Kind) -> ctypes.CDLL:
    """The library of a kind, which has confirmed that it can run here. Compiles it in a few seconds if necessary.

    Raises:
        NoLibrary: it cannot be compiled or loaded, or processor or system do not permit it.
    """
    try:
        library = _load(kind)
    except subprocess.CalledProcessError as error:
        raise NoLibrary(f"{error.cmd[0]} failed ({(error.stderr or str(error))[:500]})") from error
    except OSError as error:  # no writable folder, no space, or a folder mounted noexec
        raise NoLibrary(f"they cannot be compiled or loaded ({error})") from error
    try:
        available = library.is_available()
    except AttributeError as error:
        raise NoLibrary(f"the library is not ours ({error})") from error
    if not available:
        raise NoLibrary("processor or system do not permit them")
    return library


def _load(kind: Kind) -> ctypes.CDLL:
    """Installed with the package, from the disk cache, or compiled; for this process only if it cannot be kept.

    Raises:
        NoLibrary: there is no compiler.
        CalledProcessError: the compiler failed.
        OSError: it cannot be written or loaded.
    """
    if (installed := _installed(kind)).exists():
        return ctypes.CDLL(str(installed))
    compiler = _compiler()
    name = f"kernels-{kind.name}-{_digest(kind, compiler)}"
    if kept := find_kept(name, ".so"):
        return ctypes.CDLL(str(kept))
    try:
        return ctypes.CDLL(str(keep(name, ".so", lambda path: _compile(kind, compiler, path))))
    except NotKept:
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / "kernels.so"
            _compile(kind, compiler, built)
            return ctypes.CDLL(str(built))


def install(kinds: Iterable[Kind]) -> list[Path]:
    """Compiles libraries into the package: no process that can write there is needed later, and no compiler.

    Raises:
        NoLibrary: there is no compiler.
        CalledProcessError: the compiler failed.
        OSError: the package's folder is not writable.
    """
    compiler = _compiler()
    INSTALLED.mkdir(exist_ok=True)
    libraries = [(kind, _installed(kind)) for kind in kinds]
    for kind, library in libraries:
        _compile(kind, compiler, library)
    return [library for _, library in libraries]


def _installed(kind: Kind) -> Path:
    """Its name has a digest of its source: one of another version is not found."""
    return INSTALLED / f"{kind.name}-{_digest(kind)}.so"


def _compiler() -> str:
    """Raises NoLibrary."""
    compiler = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if compiler is None:
        raise NoLibrary("there is no C++ compiler (apt install g++)")
    return compiler


def _digest(kind: Kind, compiler: str = "") -> str:
    sources = b"".join(file.read_bytes() for file in sorted(FOLDER.glob("*.h")))
    made_from = (sources, _source(kind).read_bytes(), FLAGS, kind.flags, compiler)
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


def _source(kind: Kind) -> Path:
    return FOLDER / f"kind_{kind.name}.cpp"


def _compile(kind: Kind, compiler: str, library: Path) -> None:
    command = [compiler, *FLAGS, *kind.flags, str(_source(kind)), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    for library in install(kind for kind in KINDS if kind.machine == platform.machine()):
        print(library)
