"""The way of a query and its documents, from the bytes of a call to those of its reply: files and containers.

ARCHITECTURE.md has the table; support/walk.py sees what a running server does. A change that adds a row makes the way
longer: think of a shorter one first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import walk

PAGE = Path(__file__).parents[2] / "ARCHITECTURE.md"

LEAD_TO_A_DOCUMENT = {
    "ranking.Prepared",
    "engine.job.Job",
    "engine.protocols.LastChunk",
    "types.Ranking",
    "apis.base.Answer",
}

NO_STEP = {"types.py"}
"""It defines the objects; their checks and properties run wherever one is."""

Row = tuple[str, list[str]]
Seen = dict[str, set[str]]


@pytest.fixture(scope="module")
def calls(tiny_checkpoint: Path) -> dict[str, Seen]:
    command = [sys.executable, walk.__file__, str(tiny_checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    calls = json.loads(done.stdout)
    return {call: {name: set(found) for name, found in seen.items()} for call, seen in calls.items()}


@pytest.fixture(scope="module")
def seen(calls: dict[str, Seen]) -> Seen:
    """The usual call."""
    return calls["usual"]


@pytest.fixture(scope="module")
def table() -> list[Row]:
    """The rows of the table: a file, and the kinds of objects."""
    section = PAGE.read_text().partition("\n## The way of a text\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+\.py)` \| [^|]* \| ([^|]*) \|$", section, re.MULTILINE)
    return [(file, re.findall(r"`([^`]+)`", kinds)) for file, kinds in rows]


def test_sixteen_files_receive_a_text(seen: Seen, table: list[Row]) -> None:
    assert seen["files"] - NO_STEP == {file for file, _ in table}
    assert len(table) <= 16


def test_ten_kinds_of_objects_have_a_document_in_a_field_of_their_own(seen: Seen, table: list[Row]) -> None:
    kinds = [kind for _, kinds in table for kind in kinds]
    assert {_bare(kind) for kind in seen["holders"]} == set(kinds)
    assert len(kinds) == len(seen["holders"]) <= 10


def test_the_objects_that_lead_to_a_document_are_these(seen: Seen) -> None:
    assert seen["containers"] == seen["holders"] | LEAD_TO_A_DOCUMENT


def test_passages_lead_a_text_through_two_more_files(calls: dict[str, Seen]) -> None:
    usual, passages = calls["usual"], calls["passages"]
    assert passages["files"] - usual["files"] == {"splitting.py", "passages.py"}
    assert usual["files"] <= passages["files"]
    assert passages["holders"] - usual["holders"] == {"passages.Cutter"}


def _bare(kind: str) -> str:
    """The name of a class without its module."""
    return kind if " " in kind else kind.rpartition(".")[2]
