"""Invitations: each creates one account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from rerankd.accounts.accounts import (
    ENABLED_ADMINS,
    Account,
    has_account,
    insert_account,
    new_account,
    select_by_email,
)
from rerankd.accounts.admin_log import write
from rerankd.accounts.database import Database
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import invites
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest

INVITE_LIFETIME = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Invite:
    """A valid invitation. email: the only address that may use it; None: any."""

    email: str | None
    created_by: int
    expires: datetime


class Invites:
    """The invitations of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def create(self, by: int, email: str | None = None) -> str:
        """Returns the secret token of a new invitation.

        Args:
            by: the inviting account.
            email: the only address that may use it; None: any.

        Raises:
            InvalidRequest: the e-mail address is malformed, or has an account already.
        """
        token, now = new_token(), datetime.now(UTC)
        email = read_email(email) if email is not None else None
        values = {
            "hash": token_hash(token),
            "email": email,
            "created_by": by,
            "created": now,
            "expires": now + INVITE_LIFETIME,
        }
        with self._database.transaction() as connection:
            if email is not None and connection.execute(select_by_email(email)).first():
                raise has_account(email)
            connection.execute(insert(invites), values)
            write(connection, by, "invitation created", None, email or "for any address")
        return token

    def find(self, token: str) -> Invite | None:
        """A valid invitation; None if it was used or has expired, or if its creator is no longer an enabled
        administrator."""
        with self._database.read() as connection:
            return _invite(connection.execute(_select_valid(token)).first())

    def use(self, token: str, email: str, name: str, password: str) -> Account:
        """Creates an account and uses the invitation up.

        Raises:
            InvalidRequest: the invitation is not valid, or not for this address; or as `Accounts.create` says.
        """
        values = new_account(email, name, self._passwords.hash(password))
        with self._database.transaction() as connection:
            invite = _invite(connection.execute(_select_valid(token).with_for_update()).first())
            if invite is None:
                raise InvalidRequest("This invitation is not valid, or has expired. Ask for a new one.")
            if invite.email not in (None, values["email"]):
                raise InvalidRequest("This invitation is for another e-mail address.", [("email", "another one")])
            account = insert_account(connection, values)
            connection.execute(update(invites).where(invites.c.hash == token_hash(token)).values(used_by=account.id))
            return account


def _select_valid(token: str) -> Select[Any]:
    columns = (invites.c.email, invites.c.created_by, invites.c.expires)
    query = select(*columns).where(invites.c.hash == token_hash(token), invites.c.used_by.is_(None))
    return query.where(invites.c.expires > datetime.now(UTC), invites.c.created_by.in_(ENABLED_ADMINS))


def _invite(row: Row[Any] | None) -> Invite | None:
    return None if row is None else Invite(row.email, row.created_by, row.expires)
