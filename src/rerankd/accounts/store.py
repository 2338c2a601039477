"""Everything about accounts in one database."""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest

from rerankd.accounts.accounts import Accounts
from rerankd.accounts.admin_log import AdminLog
from rerankd.accounts.calls import Calls
from rerankd.accounts.database import Database
from rerankd.accounts.identities import Identities
from rerankd.accounts.invites import Invites
from rerankd.accounts.keys import Caller, Keys
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.links import Links
from rerankd.accounts.low_budgets import LowBudgets
from rerankd.accounts.low_credit import LowCredit
from rerankd.accounts.members import Members
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.second_factor import SecondFactors
from rerankd.accounts.sessions import Sessions
from rerankd.errors import Unauthorized


@dataclass(frozen=True, slots=True)
class Store:
    """The parts of one database."""

    database: Database
    accounts: Accounts
    sessions: Sessions
    members: Members
    invites: Invites
    keys: Keys
    ledger: Ledger
    links: Links
    low_credit: LowCredit
    low_budgets: LowBudgets
    second_factors: SecondFactors
    identities: Identities
    calls: Calls
    admin_log: AdminLog

    @classmethod
    def over(cls, database: Database) -> Store:
        passwords = Passwords()
        return cls(
            database,
            Accounts(database, passwords),
            Sessions(database),
            Members(database, passwords),
            Invites(database, passwords),
            Keys(database),
            Ledger(database),
            Links(database, passwords),
            LowCredit(database),
            LowBudgets(database),
            SecondFactors(database),
            Identities(database),
            Calls(database),
            AdminLog(database),
        )

    def session_caller(self, secret: str, csrf: str) -> Caller | None:
        """The caller of a signed-in visitor's playground; None if the session has ended, or `csrf` is not its token.

        Raises:
            WrongKey: the key of the account's playground was revoked.
            Unauthorized: the visitor may only look.
        """
        session = self.sessions.find(secret)
        if session is None or not compare_digest(csrf.encode(), session.csrf.encode()):
            return None
        if not session.may("member"):
            raise Unauthorized("Your role in this account is viewer, which may not call: ask an owner for another one.")
        return self.keys.of_playground(session.payer.id)


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
