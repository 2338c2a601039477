"""Sessions: accounts that are signed in to the web pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from rerankd.accounts.accounts import Account, account_of
from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, sessions
from rerankd.accounts.tokens import new_token, token_hash

SESSION_LIFETIME = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in account. csrf: the token that each of its forms carries."""

    account: Account
    csrf: str = field(repr=False)


class Sessions:
    """The sessions of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, account_id: int) -> str:
        """Signs an account in, and deletes expired sessions. Returns the session's secret token."""
        token, now = new_token(), datetime.now(UTC)
        values = {
            "hash": token_hash(token),
            "account_id": account_id,
            "csrf": new_token(),
            "expires": now + SESSION_LIFETIME,
        }
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.expires <= now))
            connection.execute(insert(sessions), values)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token; None if it has ended or never existed."""
        query = select(accounts, sessions.c.csrf).join_from(sessions, accounts)
        query = query.where(sessions.c.hash == token_hash(token), sessions.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            row = connection.execute(query.where(accounts.c.disabled.is_(False))).first()
        return None if row is None else Session(account_of(row._mapping), row.csrf)

    def close(self, token: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.hash == token_hash(token)))
