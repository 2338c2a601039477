"""The kernels without Python: for ARM under an emulator, under sanitizers, and with too little memory.

`tests/kernels/check.cpp` compares them with a plain forward pass in double, and has each allocation fail once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rerankd.engine.loading.devices import instruction_sets
from rerankd.engine.qwen3.kernels.kinds import KINDS

ROOT = Path(__file__).parent.parent.parent
CHECK = ROOT / "tests" / "kernels" / "check.cpp"
KERNELS = ROOT / "src" / "rerankd" / "engine" / "qwen3" / "kernels"
FLAGS = ("-std=c++17", "-fopenmp", f"-I{KERNELS}")
FAILING = "-Wl,--wrap=aligned_alloc"
"""The check decides which allocation fails."""

ARM = "aarch64-linux-gnu-g++"


def build(compiler: str, kind: str, folder: Path, flags: Sequence[str]) -> Path:
    """The check, linked with one kind of kernels. GCC 12 for ARM fails on the check itself above -O1."""
    check, program = folder / "check.o", folder / "check"
    commands = [
        [compiler, *FLAGS, *flags, "-O1", "-c", str(CHECK), "-o", str(check)],
        [compiler, *FLAGS, *flags, "-O2", FAILING, str(check), str(KERNELS / f"kind_{kind}.cpp"), "-o", str(program)],
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
@pytest.mark.parametrize("name", ["avx512_bf16", "avx512_vnni", "avx2"])
def test_no_read_or_write_is_out_of_bounds(name: str, tmp_path: Path) -> None:
    [kind] = [kind for kind in KINDS if kind.name == name]
    compiler = shutil.which("g++")
    if not compiler or not kind.instruction_sets <= set(instruction_sets()):
        pytest.skip(f"this processor cannot run the kernels {name}, or there is no compiler")
    element = ["-DBF16"] if kind.dtype == torch.bfloat16 else []
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    assert "0 failures" in run(str(build(compiler, name, tmp_path, [*kind.flags, *element, *sanitizers])))
