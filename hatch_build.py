"""Puts the compiled kernels of x86-64 Linux into a wheel, so that users need no compiler.

The wheel stays pure, and each machine compiles its kernels, where this machine has another system or no C++ compiler,
or where RERANKD_PURE_WHEEL is set. A compiler that is too old for one kind of kernels costs that kind only.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PURE = "RERANKD_PURE_WHEEL"
TAG = "py3-none-manylinux_2_28_x86_64"
GLIBC = (2, 28)
"""The wheel could not be installed on the machine that builds it if this were older; torch asks for it too."""

PACKAGE = "rerankd/engine/qwen3/kernels/installed"


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the kernels before hatchling collects the files of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling. version: "editable" for an editable install, which compiles on first use."""
        if version == "editable" or os.environ.get(PURE) or not _is_manylinux():
            return
        self._folder = tempfile.TemporaryDirectory()
        libraries = self._compile(Path(self._folder.name))
        if libraries:
            build_data["force_include"] |= {str(library): f"{PACKAGE}/{library.name}" for library in libraries}
            build_data["pure_python"], build_data["tag"] = False, TAG

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See hatchling."""
        if folder := getattr(self, "_folder", None):
            folder.cleanup()

    def _compile(self, folder: Path) -> list[Path]:
        sys.path.insert(0, str(Path(self.root) / "src"))
        from rerankd.engine.qwen3.kernels.compiling import compile_installed, find_compiler
        from rerankd.engine.qwen3.kernels.kinds import KINDS, Kind

        compiler = find_compiler()
        if compiler is None:
            self.app.display_warning("There is no C++ compiler: the wheel has no compiled kernels.")
            return []

        def library_of(kind: Kind) -> Path | None:
            try:
                return compile_installed(kind, compiler, folder)
            except subprocess.CalledProcessError as error:
                self.app.display_warning(f"The kernels {kind.name} are left out: {error.stderr[:500]}")
                return None

        kinds = [kind for kind in KINDS if kind.machine == platform.machine()]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [library for library in pool.map(library_of, kinds) if library]


def _is_manylinux() -> bool:
    """Whether this machine could install the wheel."""
    name, version = platform.libc_ver()
    machine = platform.system(), platform.machine(), name
    return machine == ("Linux", "x86_64", "glibc") and tuple(map(int, version.split(".")[:2])) >= GLIBC
