"""What the server costs without a model: calls a second, documents a second, and processor time a call.

    python benchmarks/front.py --tokenizer random-0.6B --documents 1 10 100 500 --tokens 300
    python benchmarks/front.py --tokenizer random-0.6B --text chinese.txt

The server runs in a process of its own with the real tokenizer, checks and replies; its engine answers at once. The
callers are threads of this process, each with one connection. Processor time is the server's alone, on all its threads,
so `documents/s a core` does not depend on what else the machine does; the other rates do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rerankd.bench.workloads import Workload
from rerankd.cli import serving
from rerankd.cli.log import log_to_stderr
from rerankd.config import ServerSettings
from rerankd.engine.engine import Engine
from rerankd.engine.formats import QWEN3_RERANKER
from rerankd.engine.qwen3.prompt import Qwen3Prompt
from rerankd.engine.scorer import EngineScorer
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import Logits, ModelInfo, Prompt

CLIENTS = 8
WARM_UP = 20
TICKS = os.sysconf("SC_CLK_TCK")


class AtOnce(Engine):
    """An engine whose model takes no time, without a queue."""

    def submit(self, prompts: Sequence[Prompt], *_: object, **__: object) -> Future[Logits]:
        done: Future[Logits] = Future()
        done.set_result(Logits([len(prompt.token_ids) / 1000 for prompt in prompts]))
        return done


class NoModel:
    """Never asked."""

    def __init__(self, folder: Path) -> None:
        self.info = ModelInfo("front", "qwen3", QWEN3_RERANKER.prompt_id, 32_768, "cpu", "float32", 0, str(folder))

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        raise NotImplementedError


@dataclass(frozen=True)
class Measured:
    """calls: answered in `wall_s`. cpu_s: of the server, for all of them."""

    calls: int
    documents: int
    wall_s: float
    cpu_s: float


def serve(tokenizer: Path) -> int:
    """Runs the server until a signal ends it."""
    log_to_stderr()  # a line for each call, as in use
    prompts = Qwen3Prompt(tokenizer, 32_768)
    scorer = EngineScorer(AtOnce(NoModel(tokenizer)), prompts)
    return serving.serve_models(ServerSettings(port=0), Models(ServedModel(lambda progress: scorer)))


@contextmanager
def started(tokenizer: Path) -> Iterator[tuple[int, int]]:
    """The process id and the port of a server."""
    command = [sys.executable, __file__, "--serve", "--tokenizer", str(tokenizer)]
    with tempfile.NamedTemporaryFile("r") as log, subprocess.Popen(command, stderr=Path(log.name).open("w")) as process:
        try:
            while not (found := re.search(r"Listening on http://127\.0\.0\.1:(\d+)", Path(log.name).read_text())):
                assert process.poll() is None, Path(log.name).read_text()
                time.sleep(0.1)
            yield process.pid, int(found[1])
        finally:
            process.terminate()


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def bodies_of(workload: Workload, text: str, chars: int) -> list[bytes]:
    """A call for each client: documents of English words, or pieces of a text."""
    rng, bodies = random.Random(workload.num_documents), []
    for _ in range(CLIENTS):
        query, documents = workload.texts(rng)
        if text:
            starts = [rng.randrange(max(1, len(text) - chars)) for _ in documents]
            query, documents = text[:12], [text[start : start + chars] for start in starts]
        bodies.append(json.dumps({"query": query, "documents": documents}).encode())
    return bodies


def measure(pid: int, port: int, bodies: Sequence[bytes], num_documents: int, seconds: float) -> Measured:
    """Asks for some seconds."""

    def ask(body: bytes, until: float, most: int) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        calls = 0
        while time.perf_counter() < until and calls < most:
            connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            calls += 1
        connection.close()
        return calls

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda body: ask(body, time.perf_counter() + seconds, WARM_UP), bodies))
        before, began = cpu_s(pid), time.perf_counter()
        calls = sum(pool.map(lambda body: ask(body, began + seconds, 10**9), bodies))
        wall, cpu = time.perf_counter() - began, cpu_s(pid) - before
    return Measured(calls, calls * num_documents, wall, cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json")
    parser.add_argument("--documents", type=int, nargs="+", default=[1, 10, 100, 500], help="of a call")
    parser.add_argument("--tokens", type=int, default=300, help="of a document, mean (default: 300)")
    parser.add_argument("--text", type=Path, help="a text in any script, of which the documents are pieces")
    parser.add_argument("--chars", type=int, default=430, help="of a piece (default: 430, some 300 tokens of Chinese)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row (default: 5)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        return serve(asked.tokenizer)
    text = asked.text.read_text() if asked.text else ""
    print("documents a call   calls/s   documents/s   CPU ms a call   CPU µs a document   documents/s a core")
    with started(asked.tokenizer) as (pid, port):
        for documents in asked.documents:
            workload = Workload("front", documents, asked.tokens, 0.3)
            found = measure(pid, port, bodies_of(workload, text, asked.chars), documents, asked.seconds)
            calls_s, documents_s = found.calls / found.wall_s, found.documents / found.wall_s
            each_ms, document_us = 1e3 * found.cpu_s / found.calls, 1e6 * found.cpu_s / found.documents
            print(
                f"{documents:16} {calls_s:9.1f} {documents_s:13.0f} {each_ms:15.2f} {document_us:19.0f} "
                f"{found.documents / found.cpu_s:20.0f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
