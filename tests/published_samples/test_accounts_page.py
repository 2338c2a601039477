"""docs/accounts.md: its commands are run, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.server import StartServer

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
CARD = '[rates."qwen3-rerank"]\ninput_price = 0.10\nfree_tokens = 1_000_000\nrequests_per_minute = 600\n'
TEXTS = {"query": "capital of China", "documents": ["Beijing is the capital of China.", "Bread is baked."]}


def block(language: str, containing: str) -> str:
    [found] = [text for kind, text in BLOCKS if kind == language and containing in text]
    return str(found)


def commands(containing: str) -> list[str]:
    lines = block("sh", containing).splitlines()
    return [line.partition("  #")[0] for line in lines if line.startswith("rerankd") and "serve" not in line]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], str]:
    """Runs a command of the page on a database of the test's own; what it printed."""
    database = f"sqlite:///{tmp_path / 'rerankd.db'}"

    def run(command: str) -> str:
        if "accounts create" in command:
            command = f"echo correct horse battery | {command} --password-stdin"
        script = command.replace("rerankd ", f"{sys.executable} -m rerankd ", 1)
        environment = {**os.environ, "RERANKD_DATABASE": database, "COLUMNS": "120"}
        done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    return run


def test_from_nothing_to_a_bill(run: Callable[[str], str], start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "rerankd.toml").write_text(CARD)
    for command in commands("credits add"):
        run(command)
    key = (tmp_path / "key.txt").read_text().strip()
    database = f"sqlite:///{tmp_path / 'rerankd.db'}"
    options = ("--accounts", "--database", database, "--config", str(tmp_path / "rerankd.toml"))
    server = start_server("--model", "embedded", *options)
    server.key = key
    answer = server.post("/v1/reranks", {"model": "qwen3-rerank", **TEXTS})
    for name, value in re.findall(r"^(\S+): (\S+)$", block("text", "x-rerankd-cost"), re.MULTILINE):
        assert answer.headers[name] == value

    usage, _, revoke, check = commands("accounts check")
    shown = block("text", "search page")
    assert mask(run(usage)) == mask(shown)
    assert run(check).strip() == "All balances add up."
    run(revoke)
    assert server.post("/v1/reranks", {"model": "qwen3-rerank", **TEXTS}).status_code == 401


def mask(table: str) -> str:
    """Without the key's characters and the day, which are others each time."""
    text = re.sub(r"rk-\S+", "rk", re.sub(r"\d{4}-\d\d-\d\d", "day", table))
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
