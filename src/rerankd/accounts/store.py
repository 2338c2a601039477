"""Everything that is kept about callers, over one database."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.accounts.database import Database
from rerankd.accounts.keys import Keys
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.people import People


@dataclass(frozen=True, slots=True)
class Store:
    """The parts of one database. They share nothing else."""

    database: Database
    people: People
    keys: Keys
    ledger: Ledger


def open_store(url: str, *, make_folder: bool = False) -> Store:
    """The accounts in a database, which is made, or brought up to date, first.

    Args:
        make_folder: of a SQLite file, where it is missing.

    Raises:
        SettingsError: it cannot be reached, used or made.
    """
    database = Database(url, make_folder=make_folder)
    database.upgrade()
    return Store(database, People(database), Keys(database), Ledger(database))
