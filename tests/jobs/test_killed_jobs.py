"""A job that is killed at any moment of its work with files ends with the file that it would have had."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.killing import Killer
from support.stopped_job import QUERIES

TRIED = 40
"""Moments of a job at which it is killed, at equal distances."""


@pytest.mark.parametrize("name", ["plain.trec", "passages.jsonl"])
def test_a_job_that_is_killed_at_any_moment_continues(name: str, tmp_path: Path) -> None:
    with Killer("support.stopped_job", tmp_path) as run:
        moments = run(f"whole-{name}", 0)
        whole = (tmp_path / f"whole-{name}").read_bytes()
        assert moments > TRIED
        for at in range(1, moments, max(1, moments // TRIED)):
            out = tmp_path / f"{at}-{name}"
            assert run(out.name, at) == -signal.SIGKILL
            assert not out.exists() or out.read_bytes() == whole
            known, before = journaled(out), lines(tmp_path / f"{out.name}.scored")
            if has_ended(out):
                continue
            run(out.name, 0)
            assert out.read_bytes() == whole and not list(tmp_path.glob("*.job")) and not list(tmp_path.glob(".*"))
            again = {line.strip() for line in lines(tmp_path / f"{out.name}.scored")[len(before) :]}
            assert not again & known and len(again) == QUERIES - len(known)


def has_ended(out: Path) -> bool:
    """Whether nothing is left to do."""
    return out.exists() and not out.with_name(f"{out.name}.job").exists()


def journaled(out: Path) -> set[str]:
    """The queries whose scores are kept."""
    whole = [line for line in lines(out.with_name(f"{out.name}.job") / "journal.jsonl") if line.endswith("\n")]
    return {json.loads(line)["q"] for line in whole}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []
