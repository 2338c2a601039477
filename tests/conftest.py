"""Fixtures: the real tokenizer (rebuilt), small random checkpoints, and running servers."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings

from rerankd.user_folders import cache_folder
from support.postgres import new_postgres, postgres_server  # noqa: F401  fixtures
from support.qwen_tokenizer import tokenizer_folder as build_tokenizer_folder
from support.server import RUNNING, Server, StartServer, launch
from support.stores import database_url, store  # noqa: F401  fixtures

pytest_plugins = ["support.evidence", "support.selection"]

# What is slow is not wrong: a test that measures no time passes on a busy machine, too.
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = DEFAULT_TIMEOUT_CONFIG.write = 60.0  # 5 s in httpx2
settings.register_profile(
    "rerankd",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
    print_blob=True,
)
settings.load_profile("rerankd")

DAY_S, MIDNIGHT_S = 86_400, 30

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models: more threads would only wait for each other
for size in ("COLUMNS", "LINES"):
    os.environ.pop(
        size, None
    )  # readline sets them in a worker of pytest-xdist, and commands would take them for a terminal


@pytest.fixture(scope="session")
def tokenizer_folder(pytestconfig: pytest.Config) -> Path:
    """A folder with the real tokenizer of Qwen3-Reranker."""
    return build_tokenizer_folder(pytestconfig.cache.mkdir("qwen-tokenizer"))


@pytest.fixture(scope="session")
def reference_tokenizer(tokenizer_folder: Path) -> Any:
    """The same as transformers loads it, left-padding as the model card has it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder, padding_side="left")


@pytest.fixture(scope="session")
def make_checkpoint(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Writes a small random Qwen3 checkpoint with the real tokenizer: `make_checkpoint(num_key_value_heads=8)`.

    seq_cls=True converts it as tomaarsen's checkpoints are converted: one row, yes − no.
    """
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = repr(sorted(options.items()))
        if key not in made:
            from support.checkpoints import write_checkpoint  # torch is loaded where it is needed

            made[key] = tmp_path_factory.mktemp("checkpoint")
            write_checkpoint(made[key], tokenizer_folder, **options)
        return made[key]

    yield make
    for folder in made.values():  # 20 MB of int8 weights each
        from rerankd.engine.loading.weight_sums import folder_key

        for kept in cache_folder().glob(f"int8-{folder_key(folder)}-*"):
            kept.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """One small random checkpoint, for tests that do not care about its shape."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def start_server() -> Iterator[StartServer]:
    """Starts servers on free ports: `start_server("--model", "embedded", key="…")`."""

    def start(*options: str, key: str = "", wait: bool = True, env: dict[str, str] | None = None) -> Server:
        server = launch(*options, key=key, env=env)
        RUNNING.append(server)
        if wait:
            server.wait_until(server.ready)
        return server

    yield start
    _end(list(RUNNING))


@pytest.fixture(scope="module", autouse=True)
def servers_end_with_their_module() -> Iterator[None]:
    """But for those that are kept: each takes half a gigabyte."""
    yield
    _end([server for server in RUNNING if not server.kept])


@pytest.fixture(autouse=True)
def within_a_day() -> None:
    """No test runs over midnight (UTC), where sums of a day or of a month begin again."""
    if (left_s := DAY_S - time.time() % DAY_S) < MIDNIGHT_S:
        time.sleep(left_s + 1)


@pytest.fixture(scope="module", autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that runs in the process of the tests sets rerankd's level and adds a handler of its own."""
    ours, root = logging.getLogger("rerankd"), logging.getLogger()
    levels, handlers = (ours.level, root.level), tuple(root.handlers)
    yield
    ours.setLevel(levels[0])
    root.setLevel(levels[1])
    for handler in root.handlers[:]:
        if handler not in handlers and type(handler) is logging.StreamHandler:
            root.removeHandler(handler)


def _end(servers: list[Server]) -> None:
    for server in servers:
        server.process.terminate()
    for server in servers:
        try:
            server.ended()
        finally:
            server.process.kill()  # one that does not end must not disturb the tests after it
        assert server.process.stderr is not None
        server.process.stderr.close()
        RUNNING.remove(server)


@pytest.fixture(scope="session")
def embedded_server(start_server: StartServer) -> Server:
    """The embedded model, with a key."""
    return _kept(start_server("--model", "embedded", "--alias", "Qwen/Qwen3-Reranker-4B", key="test-key"))


@pytest.fixture(scope="session")
def qwen_server(start_server: StartServer, tiny_checkpoint: Path) -> Server:
    """A small random Qwen3-Reranker in float32, with a key."""
    options = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")
    return _kept(start_server(*options, key="test-key"))


def _kept(server: Server) -> Server:
    server.kept = True
    return server
