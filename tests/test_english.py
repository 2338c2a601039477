"""The English of the code and the documentation: words and phrases that are never right in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = "anew|told|hence|thence|likewise|thereof|wherefrom|whoever|whosever|whosoever"
PHRASES = (
    "an own|of what|who has the|be had|in whose place|as it were|one an? (line|call|document|text|file|request)"
    "|so (many|much) (bytes|calls|columns|dimensions|documents|requests|seconds|texts|tokens)"
)
NEVER = re.compile(rf"\b({WORDS}|{PHRASES})\b", re.IGNORECASE)
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
