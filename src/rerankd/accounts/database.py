"""Transactions with timeouts: SQLite for one machine, PostgreSQL for several.

Whatever goes wrong with the database, callers get `Unavailable` within seconds.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from rerankd.errors import SettingsError, Unavailable

logger = logging.getLogger(__name__)

ANSWER_S = 3.0
"""The timeout of a statement, of a lock, and of a connection."""

REPORT_S = 60.0
"""The same for reports over all rows, and for creating tables."""

RETRY_AFTER_S = 5
SAY_AGAIN_S = 60.0
"""A lasting failure is logged again after this time, not for each call."""

POSTGRESQL_WORKERS = 8

UPGRADE_LOCK = 0x72_65_72_61_6E_6B
"""The advisory lock of an upgrade on PostgreSQL: a number that no other program uses."""

Doing = Literal["read", "written"]


class Database:
    """Transactions on one database; for any number of threads and processes.

    Args:
        url: `sqlite:///FILE` (created with mode 0600 if it does not exist) or `postgresql://USER:PASSWORD@HOST/NAME`.
        make_folder: creates the folder of a SQLite file.

    Raises:
        SettingsError: the URL is malformed, or the file cannot be created.
    """

    def __init__(self, url: str, *, make_folder: bool = False) -> None:
        self._url = _read(url)
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _open_sqlite(self._url, make_folder) if self._is_sqlite else _open_postgresql(self._url)
        reading: dict[str, Any] = {"begin": "DEFERRED"} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**reading)
        # SQLite has one writer. Threads wait for it here, which is cheaper than polling; its connection is kept, since
        # taking one from the pool takes as long as a transaction.
        self._turns = _Turns() if self._is_sqlite else None
        self._file = _File(self._url) if self._is_sqlite else None
        self._writer: Connection | None = None
        self._troubles = _Troubles()

    @property
    def workers(self) -> int:
        """How many threads can write at the same time."""
        return 1 if self._is_sqlite else POSTGRESQL_WORKERS

    @property
    def trouble(self) -> str | None:
        """Why the last read or write failed; None if it succeeded."""
        return self._troubles.reason

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """An atomic transaction. SQLite runs one at a time; PostgreSQL uses READ COMMITTED, so rows must be locked.

        Raises:
            Unavailable: the database does not answer or cannot be written.
        """
        with (
            self._available("written"),
            self._turns or nullcontext(),
            self._writing() as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self, timeout_s: float = ANSWER_S) -> Iterator[Connection]:
        """A consistent snapshot of the database.

        Args:
            timeout_s: the timeout of a statement on PostgreSQL.

        Raises:
            Unavailable: the database does not answer.
        """
        with self._available("read"), self._reader.connect() as connection:
            with (
                nullcontext() if self._is_sqlite or timeout_s == ANSWER_S else _statement_timeout(connection, timeout_s)
            ):
                yield connection

    def upgrade(self) -> None:
        """Creates or upgrades the tables. Processes that start together take turns.

        Raises:
            SettingsError: the database cannot be reached or used, or was written by a newer version of this program.
        """
        config = Config()
        config.set_main_option("script_location", "rerankd.accounts:migrations")
        upgrade = self._upgrade_sqlite if self._is_sqlite else self._upgrade_postgresql
        try:
            upgrade(config)
        except (DBAPIError, CommandError) as error:
            raise SettingsError(_why_not(self._url, error)) from None

    def _upgrade_sqlite(self, config: Config) -> None:
        with self._engine.connect() as connection:
            driver = _driver_of(connection)
            driver.execute(f"PRAGMA busy_timeout = {REPORT_S * 1000:.0f}")
            driver.execute("PRAGMA journal_mode = WAL")  # stored in the file
            with connection.begin():
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            driver.execute(f"PRAGMA busy_timeout = {ANSWER_S * 1000:.0f}")

    def _upgrade_postgresql(self, config: Config) -> None:
        with self._engine.begin() as connection, _statement_timeout(connection, REPORT_S):
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Closes the idle connections."""
        with self._turns or nullcontext():
            self._drop_writer()
        self._engine.dispose()

    @contextmanager
    def _available(self, doing: Doing) -> Iterator[None]:
        try:
            if self._file is not None:
                self._file.check()
            yield
        except (SQLAlchemyError, sqlite3.Error, _Unusable) as error:
            reason = str(getattr(error, "orig", None) or error).strip()
            self._troubles.failed(doing, f"{reason} ({type(error).__name__})")
            raise Unavailable(
                f"The accounts cannot be {doing} now. Try again in {RETRY_AFTER_S} s.", RETRY_AFTER_S
            ) from error
        self._troubles.worked(doing)

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._kept_writer() if self._is_sqlite else self._engine.connect()

    @contextmanager
    def _kept_writer(self) -> Iterator[Connection]:
        if self._writer is None:
            self._writer = self._engine.connect()
        try:
            yield self._writer
        except SQLAlchemyError:
            self._drop_writer()
            raise

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(SQLAlchemyError):
                writer.invalidate()
            writer.close()


class _Unusable(Exception):
    """A failure that no driver reports: the file was replaced, or the turn to write did not come."""


class _Turns:
    """A lock for one thread at a time. After a thread timed out on other processes, those behind it fail at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed = -1.0

    def __enter__(self) -> None:
        asked = time.monotonic()
        if not self._lock.acquire(timeout=ANSWER_S):
            raise _Unusable("it is busy")
        if self._failed > asked:
            self._lock.release()
            raise _Unusable("another process holds its lock")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, DBAPIError):
            self._failed = time.monotonic()
        self._lock.release()


class _File:
    """Detects that the file of a SQLite database was deleted or replaced: writes would be lost."""

    def __init__(self, url: URL) -> None:
        self._path = Path(str(url.database))
        self._identity = self._now()

    def check(self) -> None:
        """Raises _Unusable."""
        if self._now() != self._identity:
            what = "was replaced by another one" if self._path.exists() else "was deleted or moved"
            raise _Unusable(f"the file {self._path} {what} while it was in use: put it back, or restart rerankd")

    def _now(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


class _Troubles:
    """The last failures to read and to write, each logged once."""

    def __init__(self) -> None:
        self._reasons: dict[Doing, str] = {}
        self._said_at = 0.0
        self._lock = threading.Lock()

    @property
    def reason(self) -> str | None:
        return next(iter(tuple(self._reasons.values())), None)

    def failed(self, doing: Doing, reason: str) -> None:
        with self._lock:
            is_new, now = not self._reasons, time.monotonic()
            self._reasons[doing] = reason
            if is_new or now - self._said_at >= SAY_AGAIN_S:
                self._said_at = now
                logger.error("The accounts' database cannot be %s, calls are refused: %s", doing, reason)

    def worked(self, doing: Doing) -> None:
        if doing not in self._reasons:
            return
        with self._lock:
            if self._reasons.pop(doing, None) and not self._reasons:
                logger.warning("The accounts' database can be used again")


def _driver_of(connection: Connection) -> Any:
    """The driver's own connection, on which SQLAlchemy begins no transaction."""
    driver = connection.connection.driver_connection
    assert driver is not None
    return driver


@contextmanager
def _statement_timeout(connection: Connection, seconds: float) -> Iterator[None]:
    """Sets the statement timeout of a transaction on PostgreSQL."""
    for limit in ("statement_timeout", "lock_timeout"):
        connection.exec_driver_sql(f"SET LOCAL {limit} = {seconds * 1000:.0f}")
    driver = _driver_of(connection)
    before, driver.timeout_s = driver.timeout_s, seconds
    try:
        yield
    finally:
        driver.timeout_s = before


def _why_not(url: URL, error: DBAPIError | CommandError) -> str:
    if isinstance(error, CommandError) and "locate revision" in str(error):
        return f"The database {_shown(url)} was written by a newer rerankd ({error}): update this one."
    reason = error.orig if isinstance(error, DBAPIError) else error
    return f"The database {_shown(url)} cannot be used: {str(reason).strip()}."


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for PostgreSQL.

    Raises:
        SettingsError: the URL is malformed.
    """
    parsed = _read(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


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
    """The URL without its password, which may also stand in `?password=…`."""
    return url.set(query={}).render_as_string(hide_password=True)


def _open_sqlite(url: URL, make_folder: bool) -> Engine:
    path = Path(str(url.database))
    try:
        if make_folder:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise SettingsError(_cannot_open(path, error)) from None
    engine = create_engine(url, hide_parameters=True, pool_timeout=ANSWER_S)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun by `begin` below, not by the driver
        for pragma in (
            f"busy_timeout = {ANSWER_S * 1000:.0f}",
            "synchronous = NORMAL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'IMMEDIATE')}")

    return engine


def _cannot_open(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"The database {path} cannot be made: there is no folder {path.parent}. Make it, or correct --database."
    return f"The database {path} cannot be opened: {error.strerror}. Pass --database sqlite:///FILE for another place."


def _open_postgresql(url: URL) -> Engine:
    try:
        from rerankd.accounts.postgresql import BoundedConnection, connection_options
    except ImportError:
        raise SettingsError("PostgreSQL needs its driver: pip install 'rerankd[postgres]'.") from None
    engine = create_engine(
        url.update_query_dict({**connection_options(ANSWER_S), **url.query}),
        hide_parameters=True,
        pool_pre_ping=True,  # callers do not notice a restarted server
        pool_size=POSTGRESQL_WORKERS,
        pool_timeout=ANSWER_S,
    )

    @event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: Any, options: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **options)
        connection.limit(ANSWER_S)
        return connection

    return engine
