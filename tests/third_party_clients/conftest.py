"""Fixtures inside the clients' environments: the servers that run.py started, and the record of what was seen."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from contract import ClientContract, Server

SPARE_S = 15
"""A minute that ends sooner could end in the middle of a test."""

rows = pytest.StashKey[list[dict[str, Any]]]()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """A server that answers whatever it is asked; one that wants no key for a client that sends none."""
    contract: type[ClientContract] = request.cls
    return _server("" if contract.keyed else "OPEN_")


@pytest.fixture
def locked() -> Server:
    """A server, with a key that is not its key."""
    return Server(_server().url, "wrong-key")


@pytest.fixture
def limited() -> Server:
    """A server that refuses the next request: it takes one a minute, and this minute's is spent."""
    server = _server("LIMITED_")
    while (wait_s := _spend(server)) < SPARE_S:
        time.sleep(wait_s)
    return server


def _server(kind: str = "") -> Server:
    return Server(os.environ[f"CLIENTS_{kind}SERVER"], os.environ["CLIENTS_KEY"])


def _spend(server: Server) -> int:
    """Sends one request; seconds until the next one would be answered, 0 if this one was."""
    headers = {"content-type": "application/json"}
    body = b'{"query": "a", "documents": ["b"]}'
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/v1/rerank", body, headers)):
            return 0
    except HTTPError as error:
        assert error.code == 429
        return int(error.headers["retry-after"])


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Records what the client's user saw in this test, for the table in docs/compatibility.md."""
    tested: ClientContract = request.instance

    def record(what: str) -> None:
        test = request.node
        request.config.stash[rows].append(
            {
                "client": tested.distribution,
                "version": version(tested.distribution),
                "call": tested.call,
                "reached": tested.reached,
                "test": test.callspec.id if hasattr(test, "callspec") else test.originalname,
                "seen": what,
            }
        )

    return record


def pytest_configure(config: pytest.Config) -> None:
    config.stash[rows] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    if path := os.environ.get("CLIENTS_RESULTS"):
        Path(path).write_text(json.dumps(config.stash[rows], indent=1, ensure_ascii=False) + "\n")
