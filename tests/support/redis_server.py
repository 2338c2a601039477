"""A Redis server of its own for the tests, on the loopback interface, that keeps nothing on disk."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.debian_server import require, running


@contextmanager
def running_redis(port: int) -> Iterator[str]:
    """Runs until the block ends; gives its address."""
    program = require("redis-server", "redis-server")

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    with tempfile.TemporaryDirectory() as folder:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder)
        with running([program, *options], ready, Path(folder) / "log"):
            yield f"redis://127.0.0.1:{port}/0"
