"""Copies a SQLite database to a file while servers use it. Knows no table: a database of any version stays as it is."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from rerankd.accounts.database import ANSWER_S, sqlite_file
from rerankd.errors import InvalidRequest, SettingsError


def back_up(url: str, file: Path) -> None:
    """Copies the state of the database at one moment.

    Raises:
        SettingsError: the database is PostgreSQL, which has its own tool, or it does not exist.
        InvalidRequest: `file` exists already, or the copy failed.
    """
    source = sqlite_file(url)
    if source is None:
        raise SettingsError("PostgreSQL has its own tool: pg_dump --format=custom --file=FILE DATABASE.")
    if not source.is_file():
        raise SettingsError(f"There is no database {source}: correct --database.")
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be made: {error.strerror}.") from None
    try:
        with closing(_open(source)) as original, closing(sqlite3.connect(file)) as copy:
            original.backup(copy)
    except sqlite3.Error as error:
        file.unlink()
        raise InvalidRequest(f"{source} cannot be copied to {file}: {error}.") from None


def _open(source: Path) -> sqlite3.Connection:
    """The database, which is not created."""
    return sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", timeout=ANSWER_S, uri=True)
