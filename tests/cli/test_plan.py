"""`rerankd plan` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankd.capacity import plan as plan_module
from rerankd.cli.main import main

LOAD = ["plan", "--documents-per-second", "100", "--tokens", "200", "--documents", "5", "--p95", "800ms"]


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "NUM_CALLS", 200)


def test_the_answer_is_a_sentence_below_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LOAD, "--rate", "40"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("One replica: 40 documents a second of 200 tokens.")
    assert "and 1 front answer 100 documents a second with a P95 of" in printed and "(asked: 0.8 s)" in printed
    for kind in ("replicas", "fronts", "network", "database"):
        assert f"{kind} " in printed


def test_it_is_measured_where_no_rate_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    slow = ["--documents-per-second", "1", "--tokens", "50", "--documents", "5", "--p95", "1000s"]
    assert main(["plan", *slow, "--model", "embedded", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["replica"]["token_s"] > 0 and found["replicas"] == found["rows"][-1]["replicas"] >= 1
    assert found["rows"][-1]["p95_s"] <= 1000


def test_sizes_and_arrivals_come_from_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "calls.jsonl"
    lines = [
        {
            "time": f"2026-11-26T10:00:{second:02}.000+00:00",
            "status": 200,
            "documents": 8,
            "tokens": 800,
            "seconds": 0.5,
        }
        for second in (1, 1, 1, 9, 9, 20)
    ]
    log.write_text("\n".join([*map(json.dumps, lines), "no JSON", '{"message": "Ready:"}', '{"status": 503}']))
    assert main(["plan", "--documents-per-second", "50", "--p95", "3s", "--rate", "60", "--log", str(log)]) == 0
    assert capsys.readouterr().out.startswith("One replica: 60 documents a second of 100 tokens.")
    log.write_text("no call\n")
    assert main(["plan", "--documents-per-second", "50", "--rate", "60", "--log", str(log)]) == 1
    assert "fewer than two answered calls" in capsys.readouterr().err


def test_a_missing_log_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "calls.jsonl"
    assert main([*LOAD, "--rate", "40", "--log", str(log)]) == 1
    assert capsys.readouterr().err == f"rerankd plan: {log} cannot be used: No such file or directory.\n"


def test_what_cannot_be_reached_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--documents-per-second", "500", "--tokens", "300", "--p95", "200ms", "--rate", "8"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("rerankd plan: No number of replicas answers in 0.2 s") and "a GPU" in error


@pytest.mark.parametrize("time", ["fast", "0", "-1s", "1.2.3s"])
def test_a_time_has_a_unit(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--documents-per-second", "5", "--p95", time]) == 2
    assert "is not a time such as 200ms" in capsys.readouterr().err or time == "-1s"
