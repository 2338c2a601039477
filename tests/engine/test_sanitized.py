"""Tests of the kernels again, with the address and undefined-behaviour sanitizers in the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.amx import SANITIZED, amx_parts

FOLDER = Path(__file__).parent
AMX_TESTS = [FOLDER / f"test_amx_{part}.py" for part in ("tiles", "products", "attention")]
LAYERS_TEST = FOLDER / "test_kernels.py"


@pytest.mark.slow
def test_amx_accesses_nothing_out_of_bounds_and_does_nothing_undefined() -> None:
    amx_parts()  # skips where there can be no kernels
    _run_sanitized("not real_shapes", *AMX_TESTS)


@pytest.mark.slow
def test_avx512_accesses_nothing_out_of_bounds_and_does_nothing_undefined() -> None:
    amx_parts()
    _run_sanitized("avx512_bf16 and (equal_the_plain or in_chunks or threads) and not widths", LAYERS_TEST)


def _run_sanitized(chosen: str, *tests: Path) -> None:
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees nothing at its end
        SANITIZED: "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-k", chosen, "-p", "no:cacheprovider"]
    subprocess.run([*command, *map(str, tests)], check=True, env=os.environ | environment)


def _library(name: str) -> str:
    """The path of a runtime library of the compiler."""
    compiler = shutil.which("g++") or "c++"
    found = subprocess.run([compiler, f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
    return found.strip()
