"""docs/pitfalls.md: 25 threads, and each line names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LINES = re.findall(
    r"^\| (\d+) \|.*\| `(\S+)::(\w+)` \|$", (TESTS.parent / "docs/pitfalls.md").read_text(), re.MULTILINE
)


def test_every_thread_has_its_line() -> None:
    assert [int(number) for number, _, _ in LINES] == list(range(1, 26))


@pytest.mark.parametrize(("file", "name"), [line[1:] for line in LINES])
def test_the_named_test_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE)
