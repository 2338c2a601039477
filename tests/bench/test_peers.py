"""`rerankd bench` with other systems beside ours: those of the test environment, and ones that are missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerankd.cli.main import main

Bench = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def bench(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Runs `rerankd bench … --json` on one short call; returns the status, the report and what stands on stderr."""

    def run(*options: str, dtype: str = "float32") -> tuple[int, dict[str, Any], str]:
        job = ("--workload", "short", "--dtype", dtype, "--device", "cpu", "--calls", "1")
        status = main(["bench", "--model", str(tiny_checkpoint), *job, *options, "--json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out), printed.err

    return run


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """This interpreter by another name, with nothing but the standard library."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("system", ["transformers", "sentence-transformers"])
def test_a_peer_scores_as_we_do(bench: Bench, system: str) -> None:
    status, report, log = bench("--system", "rerankd", system, "--peer-python", f"{system}={sys.executable}")
    assert status == 0, log
    assert report["not_measured"] == []
    assert report["largest_score_difference"]["short"] < 1e-5
    ours, theirs = report["results"]
    assert (ours["system"], theirs["system"]) == ("rerankd", system)
    assert ours["prompt_tokens"] == theirs["prompt_tokens"] > 5 * 77
    assert theirs["documents_per_s"] > 0
    assert theirs["load_s"] > 0
    assert theirs["peak_memory_gb"] > 0.1


def test_a_peer_that_is_missing_is_named_and_the_others_are_measured(bench: Bench, other_python: Path) -> None:
    missing = ("transformers", "sentence-transformers", "vllm", "llama.cpp", "openvino")
    pythons = [f"--peer-python={system}={other_python}" for system in missing]
    status, report, log = bench("--system", "vllm", "rerankd", *(set(missing) - {"vllm"}), *pythons)
    assert status == 0
    assert [row["system"] for row in report["results"]] == ["rerankd"]
    reasons = {failure["system"]: failure["reason"] for failure in report["not_measured"]}
    assert set(reasons) == set(missing)
    for system, module in {"vllm": "vllm", "openvino": "optimum", "llama.cpp": "gguf", "transformers": "torch"}.items():
        assert reasons[system].startswith(f"{system}: no package {module} for {other_python}; --peer-python {system}=")
        assert f"not measured: {reasons[system]}\n" in log


def test_a_dtype_that_a_peer_does_not_have_is_refused(bench: Bench) -> None:
    status, report, _ = bench("--system", "sentence-transformers", dtype="int8")
    assert status == 1
    assert report["results"] == []
    assert [failure["dtype"] for failure in report["not_measured"]] == ["int8"]
    assert "float32 and bfloat16 only" in report["not_measured"][0]["reason"]


def test_a_peer_that_fails_leaves_a_log(bench: Bench, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    python.chmod(0o755)
    status, report, _ = bench("--system", "vllm", "--peer-python", f"vllm={python}")
    assert status == 1
    reason = report["not_measured"][0]["reason"]
    assert reason.startswith("vllm ended with status 3: see ")
    log = Path(reason.removeprefix("vllm ended with status 3: see ").removesuffix("."))
    assert log.read_text() == "out of luck\n"
    log.unlink()


@pytest.mark.parametrize(
    "value", ["vllm", f"nobody={sys.executable}", f"rerankd={sys.executable}", f"vllm={os.devnull}"]
)
def test_a_wrong_interpreter_is_a_wrong_option(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert main(["bench", "--model", "x", "--peer-python", value]) == 2
    assert "--peer-python" in capsys.readouterr().err
