"""Fixtures: an empty database of each kind, and the accounts in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rerankd.accounts.ledger import Ledger
from rerankd.accounts.store import Store, open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database; each test that takes it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'accounts.db'}"
    new_postgres: Callable[[], str] = request.getfixturevalue("new_postgres")
    return new_postgres()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The accounts in it: none yet."""
    opened = open_store(database_url)
    yield opened
    opened.database.close()


def free_what_died(store: Store) -> None:
    """Another process comes, and lives for longer than a lease."""
    now = time.time()
    ledger = Ledger(store.database, clock=lambda: now)
    for _ in range(8):
        ledger.renew()
        now += 20
    ledger.sweep()
