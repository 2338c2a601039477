"""`rerankd mcp`, asked by the protocol's own client over a pipe."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from rerankd.cli.main import main


async def calls(folder: Path, *asked: tuple[str, dict[str, Any]]) -> tuple[dict[str, str], list[Any]]:
    """The tools with their descriptions, and the reply to each call."""
    index = str(folder.parent / "index")
    arguments = ["mcp", str(folder), "--model", "embedded", "--index", index, "--first", "hybrid"]
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "rerankd", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    async with Client(server) as client:
        tools = {tool.name: tool.description or "" for tool in (await client.list_tools()).tools}
        return tools, [await client.call_tool(name, given) for name, given in asked]


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("rerank", {"query": "without documents"}, "documents"),
    ("rerank", {"query": "a text", "documents": "in place of a list"}, "documents"),
    ("rerank", {"query": "too few", "documents": ["a"], "top_n": 0}, "top_n may be 1 to 50; it is 0"),
    ("search", {"query": " "}, "The query is empty"),
    ("search", {"query": ["a list"]}, "query"),
    ("search", {"query": "too many", "top_n": 51}, "top_n may be 1 to 50; it is 51"),
    ("search", {"query": "no pattern", "only": ["!"]}, ".gitignore"),
    ("forget", {}, "Unknown tool"),
]
"""A tool, what it is given, and words of its answer."""


@pytest.mark.server
@pytest.mark.model
def test_an_assistant_searches_and_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "keys.md").write_text("# Keys\n\nRotate a key on the page Keys. The old one works for an hour.\n")
    (folder / "bills.md").write_text("Bills come by mail on the first of a month.\n")
    (folder / "laws.jsonl").write_text('{"_id": "l7", "text": "The penalty for theft is a fine."}\n')
    tools, (found, ranked, record, of_md, *wrong) = asyncio.run(
        calls(
            folder,
            ("search", {"query": "wie tausche ich einen Schlüssel?", "top_n": 1}),
            (
                "rerank",
                {"query": "capital of China", "documents": ["Paris is in France.", "Beijing is China's capital."]},
            ),
            ("search", {"query": "what is the penalty for theft?", "top_n": 1}),
            ("search", {"query": "what is the penalty for theft?", "only": ["*.md"]}),
            *((tool, given) for tool, given, _ in MISTAKES),
        )
    )
    assert set(tools) == {"search", "rerank"} and "best first" in tools["search"]
    [hit] = found.structured_content["results"]
    assert hit["source"] == f"{folder}/keys.md:1-3" and "Rotate a key" in hit["text"]
    assert [one["source"] for one in ranked.structured_content["results"]] == ["1", "0"]
    assert {one["source"].rpartition("/")[2].partition(":")[0] for one in of_md.structured_content["results"]} <= {
        "keys.md",
        "bills.md",
    }
    for reply, (tool, given, words) in zip(wrong, MISTAKES, strict=True):
        assert reply.is_error and words in reply.content[0].text, (tool, given)
    [law] = record.structured_content["results"]
    assert (law["source"], law["id"], hit["id"]) == (f"{folder}/laws.jsonl:1", "l7", "")


def test_a_folder_that_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", str(tmp_path / "none")]) == 1
    assert "There is no" in capsys.readouterr().err
