"""A PostgreSQL server of its own for the tests, on the loopback interface, that need not survive a crash."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from support.debian_server import require, running
from support.ports import free_port

BINARIES = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of its first database."""
    initdb = require("initdb", "postgresql", *BINARIES)
    postgres = str(Path(initdb).with_name("postgres"))
    user = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="postgres"))  # pytest's own folders are closed to other users
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        options = ("--username", "rerankd", "--auth", "trust", "--encoding", "UTF8", "--no-sync", "--pgdata", str(data))
        subprocess.run([initdb, *options], check=True, capture_output=True, user=user, cwd=folder)
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "deadlock_timeout": "100ms",
        }
        command = [postgres, "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
        url = f"postgresql://rerankd@127.0.0.1:{port}/postgres"

        def ready() -> bool:
            try:
                psycopg.connect(url).close()
            except psycopg.OperationalError:
                return False
            return True

        with running(command, ready, folder / "log", user):
            yield url
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def new_postgres(postgres_server: str) -> Callable[[], str]:
    """Makes an empty database and returns its address."""
    made = iter(range(10_000))

    def make() -> str:
        name = f"test{next(made)}"
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres_server.removesuffix("postgres") + name

    return make


def _unprivileged() -> str | None:
    """Who must run it: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    return next(user.pw_name for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))
