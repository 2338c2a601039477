"""The kernels in float32 without Python: for ARM under an emulator, and for this processor under sanitizers.

`tests/kernels/check.cpp` compares them with a plain forward pass in double.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rerankd.engine.loading.devices import instruction_sets

ROOT = Path(__file__).parent.parent.parent
CHECK = ROOT / "tests" / "kernels" / "check.cpp"
KERNELS = ROOT / "src" / "rerankd" / "engine" / "qwen3" / "kernels"
FLAGS = ("-std=c++17", "-fopenmp", f"-I{KERNELS}")
ARM = "aarch64-linux-gnu-g++"


def build(compiler: str, kind: str, folder: Path, flags: Sequence[str]) -> Path:
    """The check, linked with one kind of kernels. GCC 12 for ARM fails on the check itself above -O1."""
    check, program = folder / "check.o", folder / "check"
    commands = [
        [compiler, *FLAGS, *flags, "-O1", "-c", str(CHECK), "-o", str(check)],
        [compiler, *FLAGS, *flags, "-O2", str(check), str(KERNELS / f"kind_{kind}.cpp"), "-o", str(program)],
    ]
    for command in commands:
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stderr
    return program


def run(*command: str) -> str:
    """The output of a check without failures."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_neon_computes_the_specification_under_an_emulator(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not shutil.which(ARM) or not emulator:
        pytest.skip("this machine has no compiler or no emulator for ARM (g++-aarch64-linux-gnu, qemu-user)")
    assert "0 failures" in run(emulator, str(build(ARM, "neon", tmp_path, ["-static"])))


@pytest.mark.slow
def test_no_read_or_write_is_out_of_bounds(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if not compiler or "avx2" not in instruction_sets():
        pytest.skip("this processor cannot run the kernels avx2, or there is no compiler")
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert "0 failures" in run(str(build(compiler, "avx2", tmp_path, ["-mavx2", "-mfma", *sanitizers])))
