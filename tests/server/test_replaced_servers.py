"""Servers that are replaced under load, on one PostgreSQL: by an upgrade with a migration, and after kill -9."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg
import pytest
from sqlalchemy import select

import rerankd.accounts.migrations as migrations
from rerankd.accounts.audit import check
from rerankd.accounts.schema import entries
from rerankd.accounts.store import Store, open_store
from support.server import Server, StartServer
from support.stores import free_what_died
from support.surfaces import RERANK
from support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.database]

PRICE = 1_000
"""Of a million tokens: a thousandth of a dollar for each token."""

CREDIT = 10**12
CALLERS = 4
CALLS = 40
"""Answered calls in each step of a replacement."""

NEXT_VERSION = """
import sys
from pathlib import Path
import rerankd.accounts.migrations as migrations
from alembic.config import Config
from rerankd.cli.main import main

made = Config.__init__
def with_another_migration(self, *args, **options):
    made(self, *args, **options)
    self.set_main_option("path_separator", "os")
    versions = Path(migrations.__file__).parent / "versions"
    self.set_main_option("version_locations", f"{versions}:{sys.argv[1]}")
Config.__init__ = with_another_migration
sys.exit(main(["serve", *sys.argv[2:]]))
"""
"""The server of a version whose accounts have one migration more."""

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "next", "LATEST"

def upgrade():
    op.add_column("entries", sa.Column("region", sa.Text(), nullable=False, server_default=""))
    op.create_index("entries_region_index", "entries", ["region"])
    op.create_table("regions", sa.Column("name", sa.Text(), primary_key=True))
"""


@dataclass
class Load:
    """Callers that go on until they are stopped, each to the next of `servers`, as behind a balancer.

    Attributes:
        charged: the tokens of each answered call, by its id.
        turns: how often each caller has looked for a server.
        failed: the server of each call that got no answer, or another than 200.
    """

    key: str
    servers: list[Server] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)
    turns: list[int] = field(default_factory=lambda: [0] * CALLERS)
    failed: list[tuple[Server, str]] = field(default_factory=list)
    answered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    stop: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, calls: int = CALLS) -> None:
        """Until so many more calls are answered."""
        for _ in range(calls):
            assert self.answered.acquire(timeout=120), self.failed

    def remove(self, server: Server) -> None:
        """Returns when no caller connects to this server any more."""
        self.servers.remove(server)
        before = list(self.turns)
        wait_until(lambda: all(now > then for now, then in zip(self.turns, before, strict=True)))

    def call(self, caller: int) -> None:
        for number in itertools.count():
            if self.stop.is_set():
                return
            name = f"call-{caller}-{number}"
            self.turns[caller] += 1
            servers = list(self.servers)
            for server in servers[number % len(servers) :] + servers[: number % len(servers)]:
                try:
                    self._ask(server, name)
                except httpx2.ConnectError:
                    continue  # a balancer asks the next one
                break

    def _ask(self, server: Server, name: str) -> None:
        body = RERANK.body(documents=[f"{name} {place}" for place in range(5)])
        headers = {"x-request-id": name}
        try:
            response = server.post(RERANK.path, body, key=self.key, headers=headers)
        except httpx2.ConnectError:
            raise
        except httpx2.TransportError as error:
            self.failed.append((server, repr(error)))
            return
        if response.status_code != 200:
            self.failed.append((server, response.text))
            return
        self.charged[name] = int(response.headers["x-rerankd-tokens"])
        self.answered.release()

    @contextmanager
    def running(self) -> Iterator[None]:
        callers = [threading.Thread(target=self.call, args=(number,)) for number in range(CALLERS)]
        for one in callers:
            one.start()
        try:
            yield
        finally:
            self.stop.set()
            for one in callers:
                one.join(120)


@dataclass
class Accounts:
    """One account on one database, and how a server is started with it."""

    url: str
    store: Store
    key: str
    options: tuple[str, ...]
    account: int

    def charges(self) -> dict[str, int]:
        """Tokens by request id, each once."""
        with self.store.database.read() as connection:
            rows = list(connection.execute(select(entries).where(entries.c.kind == "charge")))
        found = {row.request_id: -row.amount // PRICE for row in rows}
        assert len(found) == len(rows)
        return found

    def check(self) -> None:
        """The sums are right, and nothing is reserved."""
        found = self.store.accounts.by_id(self.account)
        assert found is not None and found.reserved == 0
        assert found.balance == CREDIT - PRICE * sum(self.charges().values())
        assert check(self.store.database) == []


@pytest.fixture
def accounts(new_postgres: Callable[[], str], tmp_path: Path) -> Iterator[Accounts]:
    url = new_postgres()
    store = open_store(url)
    account = store.accounts.create("team@example.org")
    store.ledger.add_credits(account.id, CREDIT)
    _, key = store.keys.create(account.id, "test")
    prices = tmp_path / "rerankd.toml"
    prices.write_text(f'[rates."embedded-multilingual"]\ninput_price = {PRICE}\n')
    options = ("--model", "embedded", "--accounts", "--database", url, "--config", str(prices))
    yield Accounts(url, store, key, options, account.id)
    store.database.close()


@contextmanager
def next_version(accounts: Accounts, folder: Path) -> Iterator[Server]:
    """A server of the next version."""
    folder.mkdir(exist_ok=True)
    latest = max(file.name for file in (Path(migrations.__file__).parent / "versions").glob("0*.py"))[:4]
    (folder / "next.py").write_text(MIGRATION.replace("LATEST", latest))
    command = [sys.executable, "-c", NEXT_VERSION, str(folder), "--port", "0", *accounts.options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={"OMP_NUM_THREADS": "1", **os.environ})
    server = Server(process)
    following = threading.Thread(target=server.follow)
    following.start()
    try:
        server.wait_until(lambda: bool(server.url))
        server.wait_until(server.ready)
        yield server
    finally:
        process.terminate()
        process.wait(60)
        following.join(60)
        assert process.stderr is not None
        process.stderr.close()


def test_an_upgrade_with_a_migration_fails_no_call_and_charges_each_once(
    start_server: StartServer, accounts: Accounts, tmp_path: Path
) -> None:
    """Both versions are this code; the new one has one migration more, as the next release will."""
    old = [start_server(*accounts.options) for _ in range(2)]
    load = Load(accounts.key, list(old))
    with ExitStack() as servers, load.running():
        load.wait_for()
        for server in old:
            load.servers.append(servers.enter_context(next_version(accounts, tmp_path / "versions")))
            load.wait_for()
            load.remove(server)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(60) in (0, -signal.SIGTERM)
            load.wait_for()
    assert load.failed == []
    assert accounts.charges() == load.charged
    accounts.check()
    with psycopg.connect(accounts.url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("next",)]


def test_kill_9_of_a_server_fails_its_open_calls_only(start_server: StartServer, accounts: Accounts) -> None:
    killed, other = start_server(*accounts.options), start_server(*accounts.options)
    load = Load(accounts.key, [killed, other])
    with load.running():
        load.wait_for()
        killed.process.kill()
        killed.process.wait(60)
        load.wait_for()
        load.servers[0] = start_server(*accounts.options)
        load.wait_for()
    assert len(load.failed) <= CALLERS and all(server is killed for server, _ in load.failed), load.failed
    charges = accounts.charges()
    assert charges.items() >= load.charged.items()
    # Of an open call, the charge may be written and the reply not sent.
    assert len(charges) <= len(load.charged) + len(load.failed)
    free_what_died(accounts.store)
    accounts.check()
