"""Sessions: people who are signed in to the web pages, and the account that each acts in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from rerankd.accounts.accounts import CAN_SIGN_IN, Account, account_of
from rerankd.accounts.admin_log import Actor
from rerankd.accounts.database import Database
from rerankd.accounts.memberships import RIGHTS, Membership, Right, is_in, memberships_of
from rerankd.accounts.schema import accounts, sessions
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.errors import InvalidRequest

SESSION_LIFETIME = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person, and the account that this person acts in now.

    Attributes:
        account: that signed in: its address, password and second factor are this person's.
        csrf: the token that each of its forms carries. Another account has another one: a form of a page that was
            shown before the person switched is refused.
        payer: the account whose keys, credit and statement the person shares; `account` itself unless it is a member.
        role: of the person in the payer's account.
        memberships: the accounts that the person may switch between, the payer's included.
        has_members: whether the payer has more people than one.
    """

    account: Account
    csrf: str = field(repr=False)
    payer: Account
    role: Right
    memberships: Sequence[Membership]
    has_members: bool = False

    def may(self, right: Right) -> bool:
        """Whether the person's role in the payer's account is this one or more."""
        return RIGHTS.index(self.role) >= RIGHTS.index(right)

    @property
    def link_token(self) -> str:
        """Shows that a page of this session, and no other site, began to link a provider's person."""
        return hashlib.sha256(f"link {self.csrf}".encode()).hexdigest()

    @property
    def actor(self) -> Actor:
        """Who does something, for the log: what the only person of an account does is not logged."""
        return self.account.id if self.has_members else "owner"


class Sessions:
    """The sessions of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, account_id: int) -> str:
        """Signs a person in, to the person's first account, and deletes expired sessions.

        Returns:
            The session's secret token.
        """
        token, now = new_token(), datetime.now(UTC)
        with self._database.transaction() as connection:
            known = memberships_of(connection, account_id)
            values = {
                "hash": token_hash(token),
                "account_id": account_id,
                "csrf": new_token(),
                "expires": now + SESSION_LIFETIME,
                "payer_id": known[0].account_id if known else None,
            }
            connection.execute(delete(sessions).where(sessions.c.expires <= now))
            connection.execute(insert(sessions), values)
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token; None if it has ended or never existed, or if its person left the chosen account."""
        query = select(accounts, sessions.c.csrf, sessions.c.payer_id).join_from(
            sessions, accounts, sessions.c.account_id == accounts.c.id
        )
        query = query.where(sessions.c.hash == token_hash(token), sessions.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            row = connection.execute(query.where(CAN_SIGN_IN)).first()
            if row is None:
                return None
            person, known = account_of(row._mapping), memberships_of(connection, row.id)
            first = person.team_id or person.id
            chosen = next((one for one in known if one.account_id == (row.payer_id or first)), None)
            if chosen is None:
                return None
            payer, has_members = _payer(connection, chosen.account_id)
        csrf = row.csrf if payer.id == first else _csrf_of(row.csrf, payer.id)
        return Session(person, csrf, payer, chosen.role, known, has_members)

    def choose(self, token: str, account_id: int) -> None:
        """From now on, the session's person acts in this account. Raises InvalidRequest for an account of others."""
        with self._database.transaction() as connection:
            mine = sessions.c.hash == token_hash(token)
            person_id = connection.scalar(select(sessions.c.account_id).where(mine).with_for_update())
            known = memberships_of(connection, person_id) if person_id is not None else []
            if account_id not in [one.account_id for one in known]:
                raise InvalidRequest("You are no member of this account.")
            connection.execute(update(sessions).where(mine).values(payer_id=account_id))

    def close(self, token: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.hash == token_hash(token)))


def _payer(connection: Connection, account_id: int) -> tuple[Account, bool]:
    """(an account, whether it has more people than one)."""
    payer = connection.execute(select(accounts).where(accounts.c.id == account_id)).one()
    people = connection.execute(select(accounts.c.id).where(is_in(account_id)).limit(2)).all()
    return account_of(payer._mapping), len(people) > 1


def _csrf_of(csrf: str, account_id: int) -> str:
    return hashlib.sha256(f"{csrf} {account_id}".encode()).hexdigest()
