"""What postgres.py and redis_server.py share: a daemon of a Debian package, run for the tests only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.waiting import PATIENCE_S, wait_until


def require(program: str, package: str, *folders: str) -> str:
    """Its path. Where it is missing, tests are skipped; but on CI, nothing may be."""
    path = shutil.which(program, path=os.pathsep.join([*folders, os.environ.get("PATH", "")]))
    if path is not None:
        return path
    reason = f"needs {program}: apt-get install {package}"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running(command: Sequence[str], ready: Callable[[], bool], log: Path, user: str | None = None) -> Iterator[None]:
    """Runs a program until the block ends; it is ready when the block begins."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, user=user, cwd=log.parent)
    try:
        wait_until(lambda: process.poll() is not None or ready())
        assert process.poll() is None, f"{command[0]} did not start:\n{log.read_text()}"
        yield
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL would wait for its clients after a SIGTERM
        process.wait(PATIENCE_S)
