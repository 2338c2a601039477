"""A database that is read-only, damaged, locked, stopped, deleted or replaced: 503 soon, and no credit spent twice."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import uvicorn

from rerankd.accounts.database import Database
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.store import Store, open_store
from rerankd.admission import gate
from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from support.fakes import NumberedModel, scorer_of
from support.waiting import wait_until

PASSWORD = "correct horse battery"
COST = 1_000_000  # of a call: one query token and one document token
CARD = '[rates."fake"]\ninput_price = 500_000\n'
LEASE_S = 2.0
CALLERS = 24
"""Calls at the same time, of which the database is asked for a few only: the others do not wait for it in turn."""


@dataclass
class Bank:
    """A server in this process, whose model can be held up, and an account that calls it."""

    client: httpx2.Client
    store: Store
    model: NumberedModel
    account_id: int
    key: str
    log: pytest.LogCaptureFixture

    def call(self, number: int = 1) -> httpx2.Response:
        body = {"model": "fake", "query": "q", "documents": [str(number)]}
        return self.client.post("/v1/reranks", json=body, headers={"authorization": f"Bearer {self.key}"})

    def several(self, number: int) -> list[httpx2.Response]:
        """At once."""
        with ThreadPoolExecutor(number) as pool:
            return list(pool.map(self.call, range(number)))

    def sign_in(self) -> httpx2.Response:
        self.client.get("/sign-in")
        form = {"csrf": self.client.cookies["rerankd-form"], "email": "team@example.org", "password": PASSWORD}
        return self.client.post("/sign-in", data=form)

    def health(self) -> tuple[int, Any]:
        answer = self.client.get("/health")
        return answer.status_code, answer.json().get("accounts")

    def balance(self) -> int:
        account = self.store.accounts.by_id(self.account_id)
        assert account is not None
        return account.balance

    def lines(self) -> list[str]:
        """Of the log, about the database."""
        return [record.getMessage() for record in self.log.records if "accounts'" in record.getMessage()]


@pytest.fixture
def bank(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bank]:
    monkeypatch.setattr(gate, "RENEW_AGAIN_S", LEASE_S / 10)
    card = tmp_path / "rerankd.toml"
    card.write_text(CARD)
    store = open_store(database_url)
    account = store.accounts.create("team@example.org", "", PASSWORD)
    _, key = store.keys.create(account.id, "test")
    model = NumberedModel()
    with served(store, model, card) as client:
        yield Bank(client, store, model, account.id, key, caplog)
        model.gate.set()
    store.database.close()


@contextmanager
def served(store: Store, model: NumberedModel, card: Path) -> Iterator[httpx2.Client]:
    """Leases are short: outages that last longer than them are as short as a test may be."""
    short = replace(store, ledger=Ledger(store.database, LEASE_S))
    settings = ServerSettings(accounts=True, config=card, score_cache_mb=0)
    app = create_app(settings, Models(ServedModel(lambda _: scorer_of(model))), short)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        with httpx2.Client(base_url=f"http://{host}:{port}", timeout=120) as client:
            while client.get("/health").status_code != 200:
                time.sleep(0.01)
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """As after a failover, or when the disk is full."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        other.close()
        return
    name = url.rpartition("/")[2]
    with psycopg.connect(url.replace(name, "postgres"), autocommit=True) as admin:
        for mode in ("on", "off"):
            admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {mode}")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            if mode == "on":
                yield


def test_a_running_calls_credit_is_never_given_away(bank: Bank, database_url: str) -> None:
    """While the database could not be written for longer than a lease, nor after that."""
    bank.store.ledger.add_credits(bank.account_id, COST * 3 // 2)
    bank.model.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bank.call, 1)
        assert bank.model.entered.wait(60)
        assert bank.call(2).status_code == 429, "the rest does not pay for another one"
        with read_only(database_url):
            refused = bank.call(2)
            assert refused.status_code == 503 and "retry-after" in refused.headers and "bug" not in refused.text
            wait_until(lambda: bank.health() == (503, "unreachable"))
            metrics = bank.client.get("/metrics").text
            assert "rerankd_accounts_up 0.0" in metrics
            wait_until(lambda: "rerankd_failed_renewals_total 0.0" not in bank.client.get("/metrics").text)
            time.sleep(1.5 * LEASE_S)
        wait_until(lambda: bank.health() == (200, None))
        for _ in range(15):  # more than a lease
            again = bank.call(3)
            assert again.status_code == 429, again.text
            time.sleep(LEASE_S / 10)
        bank.model.gate.set()
        answer = running.result()
    assert answer.status_code == 200 and answer.headers["x-rerankd-cost"] == str(COST)
    assert bank.balance() == COST // 2
    assert bank.store.ledger.check() == []
    assert "rerankd_accounts_up 1.0" in bank.client.get("/metrics").text


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads and transactions that the database was asked for."""
    names: list[str] = []
    for name in ("read", "transaction"):
        original = getattr(Database, name)

        def counted(self: Database, *args: Any, name: str = name, original: Any = original) -> Any:
            names.append(name)
            return original(self, *args)

        monkeypatch.setattr(Database, name, counted)
    return names


def test_an_outage_is_503_and_a_line_of_the_log(bank: Bank, database_url: str, begun: list[str]) -> None:
    bank.store.ledger.add_credits(bank.account_id, 100 * COST)
    assert bank.call().status_code == 200
    with read_only(database_url):
        begun.clear()
        answers = bank.several(CALLERS)
        if database_url.startswith("sqlite"):  # PostgreSQL refuses to write without a wait
            assert begun.count("transaction") < CALLERS / 2, "few wait for the others' lock"
        signed_in = bank.sign_in()
        assert {answer.status_code for answer in answers} == {503} and signed_in.status_code == 503
        assert all("bug" not in answer.text for answer in answers)
        assert len(bank.lines()) == 1 and "cannot be written" in bank.lines()[0]
    wait_until(lambda: bank.call().status_code == 200)
    wait_until(lambda: "can be used again" in bank.lines()[-1])
    assert not any(record.exc_info for record in bank.log.records)
    assert bank.store.ledger.check() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_file_is_503(bank: Bank, database_url: str) -> None:
    bank.store.ledger.add_credits(bank.account_id, 100 * COST)
    file = Path(database_url.removeprefix("sqlite:///"))
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    size = file.stat().st_size
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (size - 4096))
    Path(f"{file}-wal").write_bytes(b"")
    bank.store.database.close()  # its pages are read anew
    answers = [bank.call(number) for number in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    assert bank.health() == (503, "unreachable")
    assert len(bank.lines()) == 1 and not any(record.exc_info for record in bank.log.records)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", ["deleted", "moved", "replaced"])
def test_a_file_that_went_away_takes_no_charges(bank: Bank, database_url: str, what: str, tmp_path: Path) -> None:
    bank.store.ledger.add_credits(bank.account_id, 100 * COST)
    assert bank.call().status_code == 200
    file, other = Path(database_url.removeprefix("sqlite:///")), tmp_path / "other.db"
    if what == "replaced":
        shutil.copy(file, other)
        other.replace(file)
    elif what == "moved":
        file.rename(other)
    else:
        file.unlink()
    answers = [bank.call(number) for number in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    assert bank.sign_in().status_code == 503
    assert bank.health() == (503, "unreachable")
    [line] = bank.lines()
    assert "restart rerankd" in line and str(file) in line and ("replaced" if what == "replaced" else "deleted") in line
    if what == "moved":
        other.rename(file)
        wait_until(lambda: bank.call().status_code == 200)
        assert bank.store.ledger.check() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_file_that_another_process_reads_and_writes_alone(bank: Bank, database_url: str, begun: list[str]) -> None:
    bank.store.ledger.add_credits(bank.account_id, 100 * COST)
    bank.store.database.close()
    with sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        begun.clear()
        assert {answer.status_code for answer in bank.several(CALLERS)} == {503}
        assert len(begun) < CALLERS / 2
        assert bank.sign_in().status_code == 503
        other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: bank.call().status_code == 200)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_postgresql_that_stands_still(bank: Bank, database_url: str, begun: list[str]) -> None:
    bank.store.ledger.add_credits(bank.account_id, 100 * COST)
    assert bank.call().status_code == 200
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        parent = int(Path(f"/proc/{row[0]}/stat").read_text().rpartition(")")[2].split()[1])
    pids = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    for pid in (parent, *pids):
        os.kill(pid, signal.SIGSTOP)
    try:
        begun.clear()
        assert {answer.status_code for answer in bank.several(CALLERS)} == {503}
        assert len(begun) < CALLERS
        assert bank.sign_in().status_code == 503
        assert bank.health() == (503, "unreachable")
    finally:
        for pid in (*pids, parent):
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: bank.call().status_code == 200)
    wait_until(lambda: bank.health() == (200, None))
    assert bank.store.ledger.check() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_renews_leases_survives_its_own_mistakes(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.store.ledger.add_credits(bank.account_id, COST * 3 // 2)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "renew", lambda _: 1 / 0)
        wait_until(lambda: bank.health() == (503, "unreachable"))
        assert "ZeroDivisionError" in bank.log.text and "cannot be renewed" in bank.log.text
    wait_until(lambda: bank.health() == (200, None))
    assert bank.call().status_code == 200
