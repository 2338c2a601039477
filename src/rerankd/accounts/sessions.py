"""Sessions: people who are signed in to the web pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, exists, insert, select

from rerankd.accounts.accounts import CAN_SIGN_IN, Account, account_of
from rerankd.accounts.admin_log import Actor
from rerankd.accounts.database import Database
from rerankd.accounts.members import RIGHTS, Right
from rerankd.accounts.schema import accounts, sessions
from rerankd.accounts.tokens import new_token, token_hash

SESSION_LIFETIME = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person.

    Attributes:
        account: that signed in: its address, password and second factor are this person's.
        csrf: the token that each of its forms carries.
        payer: the account whose keys, credit and statement the person shares; `account` itself unless it is a member.
        has_members: whether the payer has more people than one.
    """

    account: Account
    csrf: str = field(repr=False)
    payer: Account
    has_members: bool = False

    def may(self, right: Right) -> bool:
        """Whether the person's role in the payer's account is this one or more."""
        role = self.account.member_role
        return role != "none" and RIGHTS.index(role) >= RIGHTS.index(right)

    @property
    def actor(self) -> Actor:
        """Who does something, for the log: what the only person of an account does is not logged."""
        return self.account.id if self.has_members else "owner"


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
        members = accounts.alias("members")
        has_members = exists().where(members.c.team_id == accounts.c.id, members.c.member_role != "none")
        query = select(accounts, sessions.c.csrf, has_members.label("has_members")).join_from(sessions, accounts)
        query = query.where(sessions.c.hash == token_hash(token), sessions.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            row = connection.execute(query.where(CAN_SIGN_IN)).first()
            if row is None:
                return None
            account = account_of(row._mapping)
            if account.team_id is None:
                return Session(account, row.csrf, account, row.has_members)
            payer = connection.execute(select(accounts).where(accounts.c.id == account.team_id)).one()
        return Session(account, row.csrf, account_of(payer._mapping), has_members=True)

    def close(self, token: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.hash == token_hash(token)))
