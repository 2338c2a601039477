"""The library of one kind of kernels: installed with the package, from the disk cache, or compiled on this machine.

Knows nothing of models.
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import tempfile
from pathlib import Path

from rerankd.engine.loading.kept import NotKept, find_kept, keep
from rerankd.engine.qwen3.kernels.compiling import (
    compile_kernels,
    find_compiler,
    find_installed,
    is_intact,
    source_digest,
)
from rerankd.engine.qwen3.kernels.kinds import Kind

logger = logging.getLogger(__name__)


class NoLibrary(Exception):
    """A kind of kernels cannot run here; the message gives the reason."""


def open_library(kind: Kind) -> ctypes.CDLL:
    """The library of a kind, which has confirmed that it can run here. Compiles it in a few seconds if necessary.

    Raises:
        NoLibrary: it cannot be compiled or loaded, or processor or system do not permit it.
    """
    try:
        library = _open_installed(kind) or _load(kind)
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


def _open_installed(kind: Kind) -> ctypes.CDLL | None:
    """The one that was installed with the package, if it is intact and can be loaded."""
    try:
        for file in find_installed(kind):
            if is_intact(file) and hasattr(library := ctypes.CDLL(str(file)), "is_available"):
                return library
            logger.warning("%s is damaged or not ours: it is not used.", file)
    except OSError as error:
        logger.warning("The installed kernels %s cannot be loaded: %s.", kind.name, error)
    return None


def _load(kind: Kind) -> ctypes.CDLL:
    """From the disk cache, or compiled; for this process only if it cannot be kept.

    Raises:
        NoLibrary: there is no compiler.
        CalledProcessError: the compiler failed.
        OSError: it cannot be written or loaded.
    """
    compiler = find_compiler()
    if compiler is None:
        raise NoLibrary("there is no C++ compiler (apt install g++)")
    name = f"kernels-{kind.name}-{source_digest(kind, compiler)}"
    if kept := find_kept(name, ".so"):
        return ctypes.CDLL(str(kept))
    try:
        return ctypes.CDLL(str(keep(name, ".so", lambda path: compile_kernels(kind, compiler, path))))
    except NotKept:
        with tempfile.TemporaryDirectory() as folder:
            built = Path(folder) / "kernels.so"
            compile_kernels(kind, compiler, built)
            return ctypes.CDLL(str(built))
