"""The README's commands and outputs are run, not remembered."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rerankd
from rerankd.bench.random_weights import SHAPES
from support.server import Server, StartServer

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str, containing: str) -> str:
    """The one fenced block of a language that holds a text."""
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in text]
    return str(found)


@pytest.fixture(scope="module")
def auto_server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """`rerankd serve` with no option where no hub can be reached."""
    return start_server(env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("empty"))})


def test_the_curl_gives_the_printed_reply(auto_server: Server) -> None:
    command = block("sh", "curl ").replace("http://127.0.0.1:8000", auto_server.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True)
    reply, printed = json.loads(done.stdout), json.loads(block("json", '"results"'))
    for result, expected in zip(reply["results"], printed["results"], strict=True):
        assert result.pop("relevance_score") == pytest.approx(expected.pop("relevance_score"), abs=1e-4)
    assert reply.pop("id").startswith("rerank-") and printed.pop("id").startswith("rerank-")
    assert reply == printed


def test_the_openai_sample_runs(auto_server: Server) -> None:
    sample = block("python", "OpenAI").replace("http://127.0.0.1:8000", auto_server.url)
    done = subprocess.run([sys.executable, "-c", sample], capture_output=True, text=True, timeout=120, check=True)
    assert "'relevance_score'" in done.stdout


def test_the_client_prints_the_printed_ranking(auto_server: Server) -> None:
    sample = block("python", "client.rank(").replace("http://127.0.0.1:8000", auto_server.url)
    done = subprocess.run([sys.executable, "-c", sample], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == block("text", "embedded-multilingual, ")


def test_the_integrations_are_where_it_says() -> None:
    named = re.findall(r"`rerankd\.integrations\.(\w+)\.(\w+)\(", README)
    assert len(named) == 3
    for module, name in named:
        assert f"class {name}(" in source(module) or f"class {name}:" in source(module)


def source(integration: str) -> str:
    return (Path(rerankd.__file__).parent / "integrations" / f"{integration}.py").read_text()


def test_the_python_sample_runs_on_the_embedded_model() -> None:
    sample = block("python", "Reranker(").replace('"auto"', '"embedded"')
    done = subprocess.run([sys.executable, "-c", sample], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("1 0.")


def test_the_command_prints_the_printed_table(tmp_path: Path) -> None:
    command = block("sh", "printf ").replace("rerankd rank", f"{sys.executable} -m rerankd rank --output table")
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path, env=environment
    )
    printed = block("text", "scored by")
    assert [line.rstrip() for line in done.stdout.splitlines()] == printed.splitlines()


def test_every_surface_of_the_table_answers(auto_server: Server) -> None:
    paths = re.findall(r"`(?:POST )?(/\S*(?:rerank|score)\S*?)`", README.split("| API | paths |")[1].split("\n\n")[0])
    assert len(paths) > 10
    for path in paths:
        assert auto_server.post(path, {}, key="none").status_code in (400, 422), path


def test_every_heading_is_in_the_contents_and_every_file_is_there() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^## (.+)$", README, re.M)
    }
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert {link[1:] for link in links if link.startswith("#")} == anchors
    root = Path(__file__).parent.parent
    assert [link for link in links if not link.startswith("#") and not (root / link).exists()] == []


def test_the_memory_table_is_computed_from_the_shapes() -> None:
    rows = re.findall(r"\| Qwen3-Reranker-(\S+) \| ([\d.]+) G \| ([\d.]+) GB \| ([\d.]+) GB \| ([\d.]+) GB \|", README)
    assert [row[0] for row in rows] == list(SHAPES)
    for size, *told in rows:
        shape = SHAPES[size]
        embeddings = 151_669 * shape.hidden_size
        attention = 2 * shape.hidden_size * 128 * (shape.num_heads + 8)
        layers = shape.num_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)
        total = layers + embeddings
        expected = [f"{total / 1e9:.2f}", *(f"{n / 1e9:.1f}" for n in (total * 4, total * 2, layers + 2 * embeddings))]
        assert told == expected


def test_lines_can_be_read_in_an_editor() -> None:
    text = re.sub(r"```(json|text)\n.*?```", "", README, flags=re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
