"""What run.py saw, as the table of clients in docs/compatibility.md.

python tests/third_party_clients/compatibility.py         # writes the table
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / ".clients" / "results"
DOCUMENT = ROOT / "docs" / "compatibility.md"
TABLE = re.compile(r"(?<=<!-- clients: written by `make compatibility` -->\n).*?(?=<!-- end of clients -->)", re.DOTALL)

TITLES = {
    "sdks": "SDKs",
    "litellm": "LiteLLM",
    "langchain": "LangChain",
    "llamaindex": "LlamaIndex",
    "haystack": "Haystack",
    "nvidia": "NVIDIA NIM",
    "lightrag": "LightRAG",
    "dify": "Dify",
    "javascript": "JavaScript",
}
"""By group, in the order of the document."""

COLUMNS = {
    "test_returns_the_best": "best *n*",
    "wrong_key": "wrong key",
    "unknown_model": "unknown model",
    "too_many": "too many documents",
    "rate_limit": "rate limit",
}
"""By test."""


def main() -> None:
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))


def with_tables(document: str) -> str:
    """The document with the tables of the last results."""
    return TABLE.sub(lambda _: "\n".join(_section(group) for group in TITLES) + "\n", document, count=1)


def _section(group: str) -> str:
    rows = json.loads((RESULTS / f"{group}.json").read_text())
    lines = [f"\n### {TITLES[group]}\n", _line(["client", "call", "address", *COLUMNS.values()])]
    lines.append(_line(["---"] * (3 + len(COLUMNS))))
    for (client, version, call, reached), seen in groupby(rows, _what):
        by_test = {row["test"]: row["seen"] for row in seen}
        cells = [by_test[test] for test in COLUMNS]
        lines.append(_line([f"{client} {version}", f"`{call}`", f"`{reached}`", *cells]))
    return "\n".join(lines)


def _what(row: dict[str, Any]) -> tuple[str, str, str, str]:
    return row["client"], row["version"], row["call"], row["reached"]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
