"""A database's address → transactions. SQLite for one machine, PostgreSQL for several."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from rerankd.errors import SettingsError, Unavailable

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 15
"""How long a transaction on SQLite waits for those of other processes."""

CONNECT_TIMEOUT_S = 5
POSTGRESQL_WORKERS = 8

UPGRADE_LOCK = 0x72_65_72_61_6E_6B
"""Held on PostgreSQL during an upgrade: any number that no other program takes."""


class Database:
    """Transactions on one database; for any number of threads and processes.

    Args:
        url: `sqlite:///FILE` (made, with mode 0600, where it is not there) or `postgresql://USER:PASSWORD@HOST/NAME`.

    Raises:
        SettingsError: not such an address, or the file cannot be made.
    """

    def __init__(self, url: str) -> None:
        self._url = _read(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _open_sqlite(self._url) if self._is_sqlite else _open_postgresql(self._url)
        reading: dict[str, Any] = {"begin": "DEFERRED"} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**reading)
        # SQLite has one writer. Threads wait for it better here than by asking it again and again; its connection is
        # kept, since taking one from the pool takes as long as a transaction.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self._is_sqlite else nullcontext()
        self._writer: Connection | None = None

    @property
    def workers(self) -> int:
        """How many threads it makes sense to write from."""
        return 1 if self._is_sqlite else POSTGRESQL_WORKERS

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All of it or nothing. SQLite: one at a time; PostgreSQL: READ COMMITTED, so rows have to be locked.

        Raises:
            Unavailable: the database does not answer.
        """
        with _available(), self._turn, self._writing() as connection, connection.begin():
            yield connection

    def _writing(self) -> AbstractContextManager[Connection]:
        if not self._is_sqlite:
            return self._engine.connect()
        if self._writer is None:
            self._writer = self._engine.connect()
        return nullcontext(self._writer)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One state of the database, whatever is written meanwhile.

        Raises:
            Unavailable: the database does not answer.
        """
        with _available(), self._reader.connect() as connection:
            yield connection

    def upgrade(self) -> None:
        """Makes the tables, or brings older ones up to date. Processes that start together take turns.

        Raises:
            SettingsError: the database cannot be reached or used, or a newer version of this program made it.
        """
        config = Config()
        config.set_main_option("script_location", "rerankd.accounts:migrations")
        try:
            with self._turn, self._engine.begin() as connection:
                if not self._is_sqlite:
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (DBAPIError, CommandError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise SettingsError(f"The database {_shown(self._url)} cannot be used: {str(reason).strip()}.") from None

    def close(self) -> None:
        """Closes the connections that are not in use."""
        with self._turn:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._engine.dispose()


@contextmanager
def _available() -> Iterator[None]:
    try:
        yield
    except (OperationalError, PoolTimeout) as error:
        logger.error("The accounts' database does not answer: %s", getattr(error, "orig", error))
        raise Unavailable("The accounts cannot be read or written now. Try again in 5 s.", 5) from error


def _read(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise SettingsError("database: not an address such as sqlite:///FILE or postgresql://USER@HOST/NAME.") from None
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        return parsed
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise SettingsError(f"database: {_shown(parsed)} is neither sqlite:///FILE nor postgresql://USER@HOST/NAME.")


def _shown(url: URL) -> str:
    """Without its password, wherever it is: `postgresql://HOST/NAME?password=…` is one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _open_sqlite(url: URL) -> Engine:
    path = Path(str(url.database))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise SettingsError(f"The database {path} cannot be opened: {error.strerror}.") from None
    engine = create_engine(url, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # Python's driver begins no transactions: `begin` below does
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_S * 1000}",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'IMMEDIATE')}")

    return engine


def _open_postgresql(url: URL) -> Engine:
    try:
        return create_engine(
            url.update_query_dict({"connect_timeout": str(CONNECT_TIMEOUT_S), **url.query}),
            hide_parameters=True,
            pool_pre_ping=True,  # a server that was restarted is not noticed by callers
            pool_size=POSTGRESQL_WORKERS,
            pool_timeout=CONNECT_TIMEOUT_S,
        )
    except ImportError:
        raise SettingsError("PostgreSQL needs its driver: pip install 'rerankd[postgres]'.") from None
