"""A running `rerankd serve`, in a process of its own; conftest.py starts and ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from support.quick import skip_if_quick
from support.waiting import PATIENCE_S, wait_until


@dataclass
class Server:
    """A running `rerankd serve`."""

    process: subprocess.Popen[str]
    url: str = ""
    key: str = ""
    log: list[str] = field(default_factory=list, repr=False)
    kept: bool = False  # until the end of all tests
    follower: threading.Thread | None = field(default=None, repr=False)  # keeps the log

    def post(self, path: str, body: Any = None, key: str | None = None, **options: Any) -> httpx2.Response:
        """POSTs JSON with the server's key, or with another one."""
        headers = {"authorization": f"Bearer {self.key if key is None else key}", **options.pop("headers", {})}
        return httpx2.post(self.url + path, json=body, headers=headers, timeout=60, **options)

    def wait_until(self, condition: Callable[[], bool], attempts: int = 20_000) -> None:
        """See `waiting.wait_until`. Raises if the process ends first."""

        def holds() -> bool:
            if condition():
                return True
            assert self.process.poll() is None, "The server ended:\n" + "".join(self.log)
            return False

        wait_until(holds, attempts)

    def ready(self) -> bool:
        """Whether /health says 200."""
        return httpx2.get(f"{self.url}/health").status_code == 200

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ends it by a signal. Returns its status; `log` is complete then."""
        self.process.send_signal(by)
        return self.ended()

    def ended(self) -> int:
        """Its status, once it has ended by itself; `log` is complete then."""
        status = self.process.wait(PATIENCE_S)
        if self.follower is not None:
            self.follower.join(PATIENCE_S)
        return status

    def follow(self) -> None:
        """Keeps the log, and finds the address in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"Listening on (\S+)", line):
                self.url = found[1]


RUNNING: list[Server] = []
"""Those of the fixture `start_server`, the first one first."""


def launch(*options: str, key: str = "", env: Mapping[str, str] | None = None) -> Server:
    """Starts one on a free port; returns as soon as its address is known. Whoever starts it ends it."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    if key:
        command += ["--api-key", key]
    # Small models on few cores: more threads than cores would only wait for each other.
    environment = {"OMP_NUM_THREADS": "1", **(os.environ if env is None else env)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    server = Server(process, key=key)
    server.follower = threading.Thread(target=server.follow, daemon=True)
    server.follower.start()
    try:
        server.wait_until(lambda: bool(server.url))
    except AssertionError:
        process.kill()
        raise
    return server


class StartServer(Protocol):
    """Starts servers on free ports: `start_server("--model", "embedded", key="…")`."""

    def __call__(
        self, *options: str, key: str = "", wait: bool = True, env: dict[str, str] | None = None
    ) -> Server: ...


def refusal(*options: str, env: Mapping[str, str] | None = None) -> str:
    """What `rerankd serve` says when it refuses to start."""
    skip_if_quick("starts the command")
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
