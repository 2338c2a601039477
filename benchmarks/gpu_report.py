"""`make gpu-report`: what rerankd does on this machine's CUDA card, as Markdown to paste.

    python benchmarks/gpu_report.py --model ./random-0.6B

The card, the tests that need one, `rerankd bench`, `rerankd doctor`. Writes gpu-report.md, and ends with status 1 if
there is no card or a test failed. The model may have random weights: then the known-answer check says nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from rerankd.version import __version__

ROOT = Path(__file__).parent.parent
TESTS = ("test_gpu.py", "test_varlen_attention.py", "test_batch_tokens.py", "test_out_of_memory.py")
WORKLOADS = ("A", "B", "C", "8x1500", "1x30")
ON_CARD = ("--device", "cuda", "--dtype", "bfloat16")
TIMEOUT_S = 1800


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report."""
    parser = argparse.ArgumentParser(description="Reports what rerankd does on this machine's CUDA card.")
    parser.add_argument("--model", default="Qwen/Qwen3-Reranker-0.6B", help="for rerankd doctor")
    parser.add_argument("--output", type=Path, default=Path("gpu-report.md"))
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"gpu-report needs a CUDA card, and torch {torch.__version__} finds none.", file=sys.stderr)
        return 1
    files = [str(ROOT / "tests" / "engine" / name) for name in TESTS]
    tests, passed = _run("-m", "pytest", "-q", "-rfEs", "--no-header", "-p", "no:cacheprovider", *files)
    bench, _ = _rerankd("bench", "--random-weights", "0.6B", "--workload", *WORKLOADS, *ON_CARD, "--calls", "10")
    doctor, _ = _rerankd("doctor", "--model", given.model, *ON_CARD)
    given.output.write_text(_report(tests, bench, doctor), encoding="utf-8")
    print(f"Written: {given.output}")
    return 0 if passed else 1


def _report(tests: str, bench: str, doctor: str) -> str:
    kernels = re.search(r"^kernels +(\S+)", doctor, re.MULTILINE)
    facts = {
        "card": _card(),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "rerankd": f"{__version__}, commit {_commit()}",
        "attention": {"varlen": "unpadded", "plain": "padded"}.get(kernels[1], kernels[1]) if kernels else "not known",
        "tests": (tests.splitlines() or ["none"])[-1].strip("= "),
    }
    lines = ["# rerankd on a CUDA card", "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]
    for title, text in (("Speed", bench), ("Doctor", doctor), ("Tests", tests)):
        lines += ["", f"## {title}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def _card() -> str:
    properties = torch.cuda.get_device_properties(0)
    card = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    if not (program := shutil.which("nvidia-smi")):
        return card
    query = [program, "--query-gpu=driver_version,power.limit", "--format=csv,noheader", "--id=0"]
    return f"{card}, driver and power limit {subprocess.run(query, capture_output=True, text=True).stdout.strip()}"


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "not known"
    except OSError:
        return "not known"


def _rerankd(*arguments: str) -> tuple[str, bool]:
    return _run("-m", "rerankd", *arguments)


def _run(*arguments: str) -> tuple[str, bool]:
    """What a Python program prints, and whether its status is 0."""
    print(" ".join(arguments), file=sys.stderr)
    environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"did not end in {TIMEOUT_S} s", False
    return (done.stdout + ("" if done.returncode == 0 else done.stderr)).strip(), done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
