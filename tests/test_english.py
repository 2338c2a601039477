"""The English of the code and the documentation: a few words that are never right in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEVER = re.compile(r"\b(anew|told|whosever|whosoever|thereof|wherefrom)\b", re.IGNORECASE)
FILES = [
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "examples").rglob("*.*"),
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "SECURITY.md")),
]


def test_no_word_of_the_list() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word[0]}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (word := NEVER.search(line))
    ]
    assert not found
