"""`rerankd doctor` and `rerankd bench`, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rerankd.cli import bench
from rerankd.cli.main import main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rerankd", *arguments], capture_output=True, text=True, timeout=300)


def test_doctor_tells_the_facts_of_a_good_model() -> None:
    done = run("doctor", "--model", "embedded", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["dtype"] == "float32"
    assert facts["known_answer_check"].startswith("sane: ")
    assert "documents/s" in facts["speed"]
    assert len(facts["logits"]) == 4


def test_doctor_fails_on_a_model_that_cannot_rank(tiny_checkpoint: Path) -> None:
    done = run("doctor", "--model", str(tiny_checkpoint))
    assert done.returncode == 1
    assert "failed: " in done.stdout
    assert "qwen3-reranker-card, up to 40960 tokens" in done.stdout


def test_bench_measures_both_systems_and_compares_their_scores(tiny_checkpoint: Path) -> None:
    done = run(
        *("bench", "--model", str(tiny_checkpoint), "--workload", "C", "--dtype", "float32", "--calls", "2"),
        *("--system", "rerankd", "transformers", "--json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [row["system"] for row in report["results"]] == ["rerankd", "transformers"]
    for row in report["results"]:
        assert row["documents"] == 100
        assert row["documents_per_s"] > 0
        assert 0 < row["p50_s"] <= row["p95_s"]
        assert row["peak_memory_gb"] > 0.05
    ours, theirs = report["results"]
    assert 0 < ours["of_limit"] and 0 < ours["limit_tflops"] and theirs["limit_tflops"] is None
    assert report["largest_score_difference"]["C"] < 1e-4


def test_bench_makes_a_random_checkpoint_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rerankd.bench import random_weights

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shape = random_weights.Shape(hidden_size=64, intermediate_size=96, num_layers=2, num_heads=8, tied=False)
    monkeypatch.setitem(random_weights.SHAPES, "8B", shape)
    folder = random_weights.random_checkpoint("8B")
    assert folder.is_relative_to(tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert random_weights.random_checkpoint("8B") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_help_is_light_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("serve", "rank", "doctor", "bench"))
    assert bench.__doc__


def test_serve_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--model", "--api-key", "--no-auth", "--alias", "--max-queue", "--no-lift-instruct"):
        assert option in shown
