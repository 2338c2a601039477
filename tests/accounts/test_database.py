"""Making, upgrading and opening a database; what it refuses."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text

from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, entries, metadata
from rerankd.accounts.store import Store, open_store
from rerankd.errors import SettingsError, Unavailable


def test_the_migrations_make_what_the_schema_says(store: Store) -> None:
    with store.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_upgrading_again_changes_nothing(store: Store) -> None:
    account = store.accounts.create("ann@example.org")
    store.database.upgrade()
    assert store.accounts.all() == [account]


def test_processes_that_start_together_make_one_database(database_url: str) -> None:
    code = f"from rerankd.accounts.store import open_store; open_store({database_url!r})"
    starting = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [(process.communicate()[1], process.returncode) for process in starting] == [("", 0)] * 4
    opened = open_store(database_url)
    assert opened.accounts.all() == []
    opened.database.close()


def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    with store.database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    with pytest.raises(SettingsError, match=r"was written by a newer rerankd \(.*later.*\): update this one"):
        store.database.upgrade()


@pytest.mark.parametrize("change", ["UPDATE entries SET amount = 0", "DELETE FROM entries"])
def test_entries_can_be_neither_changed_nor_deleted(store: Store, change: str) -> None:
    account = store.accounts.create("ann@example.org")
    store.ledger.add_credits(account.id, 5)
    with pytest.raises(Unavailable) as raised, store.database.transaction() as connection:
        connection.execute(text(change))
    assert "append-only" in str(raised.value.__cause__)
    with store.database.read() as connection:
        assert connection.scalars(select(entries.c.amount)).all() == [5]


def test_entries_cannot_be_truncated(new_postgres: Callable[[], str]) -> None:
    opened = open_store(new_postgres())
    with pytest.raises(Unavailable) as raised, opened.database.transaction() as connection:
        connection.execute(text("TRUNCATE entries"))
    assert "append-only" in str(raised.value.__cause__)
    opened.database.close()


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.database.transaction() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        raise ZeroDivisionError
    store.database.upgrade()  # would make the tables again


def test_a_reader_sees_one_state(store: Store) -> None:
    number = select(func.count()).select_from(accounts)
    with store.database.read() as connection:
        before = connection.scalar(number)
        store.accounts.create("ann@example.org")
        assert connection.scalar(number) == before == 0
    with store.database.read() as connection:
        assert connection.scalar(number) == 1


def test_the_file_and_its_folder_are_the_users_own(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "accounts.db"
    opened = open_store(f"sqlite:///{file}", make_folder=True)
    opened.accounts.create("ann@example.org")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert modes == {"accounts.db": 0o600, "accounts.db-wal": 0o600, "accounts.db-shm": 0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    opened.database.close()


def test_as_many_workers_as_can_write_at_once(new_postgres: Callable[[], str], tmp_path: Path) -> None:
    assert Database(f"sqlite:///{tmp_path / 'a.db'}").workers == 1
    assert Database(new_postgres()).workers > 1


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:hunter2@host/name"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="sqlite:///FILE") as raised:
        Database(url)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("Buy milk.\n" * 100)
    with pytest.raises(SettingsError, match=r"notes\.txt cannot be used: file is not a database"):
        Database(f"sqlite:///{file}").upgrade()
    assert file.read_text() == "Buy milk.\n" * 100


@pytest.mark.parametrize("make_folder", [False, True])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, make_folder: bool) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be opened.* --database"):
        Database(f"sqlite:///{tmp_path}/file/accounts.db", make_folder=make_folder)


def test_a_folder_that_is_not_there_is_a_mistake_and_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "nonexistent" / "folder"
    with pytest.raises(SettingsError, match=f"there is no folder {folder}. Make it, or correct --database"):
        open_store(f"sqlite:///{folder}/accounts.db")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_refused_without_its_password() -> None:
    with pytest.raises(SettingsError, match="cannot be used: connection failed") as raised:
        Database("postgresql://ann:hunter2@127.0.0.1:1/accounts").upgrade()
    assert "hunter2" not in str(raised.value)


def test_a_server_that_restarted_is_found_again(new_postgres: Callable[[], str], postgres_server: str) -> None:
    url = new_postgres()
    opened = open_store(url)
    opened.accounts.create("ann@example.org")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        name = url.rpartition("/")[2]
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        assert connection.execute(ended, [name]).fetchall() == [(True,)]
        assert len(opened.accounts.all()) == 1
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    with pytest.raises(Unavailable, match="Try again"):
        opened.accounts.all()
    opened.database.close()
