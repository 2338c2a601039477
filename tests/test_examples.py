"""The programs in examples/ run; the one for LangChain in tests/integrations/test_langchain.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import Server

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str, **variables: str) -> str:
    """The output of an example."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def variables(embedded_server: Server) -> dict[str, str]:
    return {"RERANKD_URL": embedded_server.url, "RERANKD_API_KEY": embedded_server.key}


def test_rag(variables: dict[str, str]) -> None:
    assert "[1] To cancel an order, open My orders" in run("rag.py", **variables)


def test_async_client(variables: dict[str, str]) -> None:
    lines = run("async_client.py", **variables).splitlines()
    assert [line.split(": ")[1].split(" (")[0] for line in lines] == [
        "Berlin is the capital of Germany.",
        "Water boils at 100 °C at sea level.",
        "Beijing is the capital of China.",
    ]


def test_rank_file(tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(json.dumps({"query": "capital of China", "documents": ["Gravity is a force.", "Beijing, China."]}))
    [line] = run("rank_file.py", str(file), "--model", "embedded").splitlines()
    assert json.loads(line)["indices"] == [1, 0]


def test_openai_sdk(variables: dict[str, str]) -> None:
    models, best = run("openai_sdk.py", **variables).splitlines()
    assert "qwen3-rerank" in models
    assert best.endswith("The capital of China is Beijing.")


def test_every_example_is_listed_and_tested() -> None:
    tested = Path(__file__).read_text() + (Path(__file__).parent / "integrations" / "test_langchain.py").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"[{path.name}]({path.name})" in (EXAMPLES / "README.md").read_text()
        assert f'"{path.name}"' in tested
