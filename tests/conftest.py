"""Fixtures: the real tokenizer (rebuilt), small random checkpoints, and running servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from postgres import new_postgres, postgres_server  # noqa: F401  fixtures
from qwen_tokenizer import tokenizer_folder as build_tokenizer_folder
from stores import database_url, store  # noqa: F401  fixtures

torch.set_num_threads(1)  # small models: more threads than cores would only wait for each other

TINY = dict(
    vocab_size=151669,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=16,  # 8 heads × 16 = 128, not hidden_size
    max_position_embeddings=40960,
    rope_theta=1_000_000.0,
    tie_word_embeddings=True,
    initializer_range=0.15,  # large enough that logits differ by whole units
)


@pytest.fixture(scope="session")
def tokenizer_folder(pytestconfig: pytest.Config) -> Path:
    """A folder with the real tokenizer of Qwen3-Reranker."""
    return build_tokenizer_folder(pytestconfig.cache.mkdir("qwen-tokenizer"))


@pytest.fixture(scope="session")
def reference_tokenizer(tokenizer_folder: Path) -> Any:
    """The same as transformers loads it, left-padding as the model card has it."""
    return AutoTokenizer.from_pretrained(tokenizer_folder, padding_side="left")


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small random Qwen3 checkpoint with the real tokenizer: `make_checkpoint(num_key_value_heads=8)`.

    seq_cls=True converts it as tomaarsen's checkpoints are converted: one row, yes − no.
    """
    made: dict[str, Path] = {}

    def make(*, seq_cls: bool = False, shard_size: str = "5GB", seed: int = 0, **changes: Any) -> Path:
        key = repr((seq_cls, shard_size, seed, sorted(changes.items())))
        if key not in made:
            torch.manual_seed(seed)
            config = Qwen3Config(**{**TINY, **changes})
            model: Any = Qwen3ForCausalLM(config).eval()
            folder = tmp_path_factory.mktemp("checkpoint")
            if seq_cls:
                config.num_labels = 1
                converted = Qwen3ForSequenceClassification(config).eval()
                converted.model.load_state_dict(model.model.state_dict())
                head = model.lm_head.weight
                converted.score.weight.data = (head[9693] - head[2152])[None]
                model = converted
            model.save_pretrained(folder, max_shard_size=shard_size)
            for file in tokenizer_folder.iterdir():
                (folder / file.name).symlink_to(file)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """One small random checkpoint, for tests that do not care about its shape."""
    return make_checkpoint()


@dataclass
class Server:
    """A running `rerankd serve`."""

    process: subprocess.Popen[str]
    url: str = ""
    key: str = ""
    log: list[str] = field(default_factory=list, repr=False)
    kept: bool = False  # until the end of all tests

    def post(self, path: str, body: Any = None, key: str | None = None, **options: Any) -> httpx2.Response:
        """POSTs JSON with the server's key, or with another one."""
        headers = {"authorization": f"Bearer {self.key if key is None else key}", **options.pop("headers", {})}
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=60, **options)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Raises if the process ends or the time is over first."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the server did not get there:\n" + "".join(self.log))
            time.sleep(0.02)

    def ready(self) -> bool:
        """Whether /health says 200."""
        return httpx2.get(f"{self.url}/health", timeout=5).status_code == 200


_running: list[Server] = []


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers on free ports: `start_server("--model", "embedded", key="…")`."""

    def start(*options: str, key: str = "", wait: bool = True, env: dict[str, str] | None = None) -> Server:
        command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
        if key:
            command += ["--api-key", key]
        # Small models on few cores: more threads than cores would only wait for each other.
        environment = {"OMP_NUM_THREADS": "1", **(os.environ if env is None else env)}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        server = Server(process, key=key)
        _running.append(server)
        threading.Thread(target=_follow, args=(server,), daemon=True).start()
        server.wait_until(lambda: bool(server.url))
        if wait:
            server.wait_until(server.ready)
        return server

    yield start
    _end(list(_running))


@pytest.fixture(scope="module", autouse=True)
def servers_end_with_their_module() -> Iterator[None]:
    """But for those that are kept: each takes half a gigabyte."""
    yield
    _end([server for server in _running if not server.kept])


def _end(servers: list[Server]) -> None:
    for server in servers:
        server.process.terminate()
    for server in servers:
        server.process.wait(30)
        assert server.process.stderr is not None
        server.process.stderr.close()
        _running.remove(server)


def _follow(server: Server) -> None:
    assert server.process.stderr is not None
    for line in server.process.stderr:
        server.log.append(line)
        if found := re.search(r"Listening on (\S+)", line):
            server.url = found[1]


@pytest.fixture(scope="session")
def embedded_server(start_server: Callable[..., Server]) -> Server:
    """The embedded model, with a key."""
    return _kept(start_server("--model", "embedded", "--alias", "Qwen/Qwen3-Reranker-4B", key="test-key"))


@pytest.fixture(scope="session")
def qwen_server(start_server: Callable[..., Server], tiny_checkpoint: Path) -> Server:
    """A small random Qwen3-Reranker in float32, with a key."""
    options = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")
    return _kept(start_server(*options, key="test-key"))


def _kept(server: Server) -> Server:
    server.kept = True
    return server
