"""Everything about accounts in one database."""

from __future__ import annotations

from dataclasses import dataclass

from rerankd.accounts.accounts import Accounts
from rerankd.accounts.database import Database
from rerankd.accounts.invites import Invites
from rerankd.accounts.keys import Keys
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Store:
    """The parts of one database."""

    database: Database
    accounts: Accounts
    sessions: Sessions
    invites: Invites
    keys: Keys
    ledger: Ledger

    @classmethod
    def over(cls, database: Database) -> Store:
        passwords = Passwords()
        return cls(
            database,
            Accounts(database, passwords),
            Sessions(database),
            Invites(database, passwords),
            Keys(database),
            Ledger(database),
        )


def open_store(url: str, *, make_folder: bool = False) -> Store:
    """Opens the accounts' database, and creates or upgrades its tables.

    Args:
        make_folder: creates the folder of a SQLite file.

    Raises:
        SettingsError: the database cannot be reached, used or created.
    """
    database = Database(url, make_folder=make_folder)
    database.upgrade()
    return Store.over(database)
