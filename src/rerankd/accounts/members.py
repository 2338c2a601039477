"""The members of an account: people who sign in for themselves and share its keys, its credit and its statement.

A new member is a row of `accounts` that only signs in: `team_id` names the account that pays. The account's own row is
its first member. People who have an account already join through `memberships`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from rerankd.accounts.accounts import Account, everybody, insert_account, new_account
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.memberships import (
    Membership,
    Right,
    is_in,
    join,
    lock_team,
    memberships_of,
    owns,
    set_right,
    take_out,
)
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import accounts, memberships
from rerankd.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Member:
    """A person who may act in an account.

    Attributes:
        since: when the person came in.
        is_first: the account bears this person's address.
        is_joined: the person has another account, too, which came first.
    """

    id: int
    email: str
    name: str
    role: Right
    since: datetime
    has_second_factor: bool
    is_first: bool
    is_disabled: bool
    is_joined: bool = False


class Members:
    """The members of the accounts of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def of(self, account_id: int) -> list[Member]:
        """The first one, then the others by e-mail address."""
        own = select(accounts, accounts.c.member_role.label("held_role"), accounts.c.created.label("since"))
        own = own.where(everybody(account_id), accounts.c.member_role != "none")
        joined = select(accounts, memberships.c.role.label("held_role"), memberships.c.joined.label("since"))
        joined = joined.join_from(memberships, accounts, accounts.c.id == memberships.c.person_id)
        joined = joined.where(memberships.c.account_id == account_id, memberships.c.role != "none")
        with self._database.read() as connection:
            found = [_member(row, account_id) for query in (own, joined) for row in connection.execute(query)]
        return sorted(found, key=lambda one: (not one.is_first, one.email))

    def owners(self, account_id: int) -> list[str]:
        """The e-mail addresses of the owners: they receive the mails about the account."""
        return [member.email for member in self.of(account_id) if member.role == "owner"]

    def add(
        self, account_id: int, email: str, name: str, password: str, role: Right, by: Actor = "operator"
    ) -> Account:
        """Creates a member.

        Raises:
            InvalidRequest: no such account, too many members, or as `Accounts.create` says.
        """
        values = new_account(email, name, self._passwords.hash(password))
        with self._database.transaction() as connection:
            return add_member(connection, account_id, values, role, by)

    def add_existing(self, account_id: int, person_id: int, role: Right, by: Actor = "operator") -> None:
        """Makes a person who has an account a member of another one. Raises InvalidRequest, as `join` says."""
        with self._database.transaction() as connection:
            email = join(connection, account_id, person_id, role)
            write(connection, by, "member joined", account_id, f"{email}: {role}")

    def accounts_of(self, person_id: int) -> list[Membership]:
        """The enabled accounts that a person may act in: the first one, then the others by e-mail address."""
        with self._database.read() as connection:
            return memberships_of(connection, person_id)

    def set_role(self, account_id: int, member_id: int, role: Right, by: Actor = "operator") -> None:
        """Raises InvalidRequest if the account has no such member, or would be left without an owner."""
        with self._database.transaction() as connection:
            email = _locked(connection, account_id, member_id)
            if role != "owner":
                keep_an_owner(connection, account_id, member_id)
            set_right(connection, account_id, member_id, role)
            write(connection, by, "member role changed", account_id, f"{email}: {role}")

    def remove(self, account_id: int, member_id: int, by: Actor = "operator") -> None:
        """Ends the member's sessions in the account. The keys stay with it.

        A person who has no other account signs in no more, and the address is free again.

        Raises:
            InvalidRequest: the account has no such member, or would be left without an owner; or the member is an
                administrator of the server.
        """
        with self._database.transaction() as connection:
            email = _locked(connection, account_id, member_id)
            keep_an_owner(connection, account_id, member_id)
            _keep_administrators(connection, account_id, member_id)
            take_out(connection, account_id, member_id)
            write(connection, by, "member left" if by == member_id else "member removed", account_id, email)


def add_member(connection: Connection, account_id: int, values: Mapping[str, Any], role: Right, by: Actor) -> Account:
    """Inserts a member with these columns. Raises InvalidRequest."""
    lock_team(connection, account_id)
    account = insert_account(connection, {**values, "team_id": account_id, "member_role": role})
    write(connection, account.id if by == "owner" else by, "member joined", account_id, f"{account.email}: {role}")
    return account


def _locked(connection: Connection, account_id: int, member_id: int) -> str:
    """Locks the account, so that two owners cannot remove each other at once. Returns the member's e-mail address.

    Raises:
        InvalidRequest: the account has no such member.
    """
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
    email = connection.scalar(select(accounts.c.email).where(is_in(account_id), accounts.c.id == member_id))
    if email is None:
        raise InvalidRequest("This account has no such member.")
    return str(email)


def keep_an_owner(connection: Connection, account_id: int, member_id: int) -> None:
    """Raises InvalidRequest if nobody else is an enabled owner of a locked account."""
    others = (owns(account_id), accounts.c.id != member_id, accounts.c.disabled.is_(False))
    itself = select(accounts.c.id).where(owns(account_id), accounts.c.id == member_id)
    is_owner = connection.execute(itself).first() is not None
    if is_owner and connection.execute(select(accounts.c.id).where(*others)).first() is None:
        raise InvalidRequest("This is the only owner: make another member an owner first.")


def _keep_administrators(connection: Connection, account_id: int, member_id: int) -> None:
    """Raises InvalidRequest for an administrator of the server, who could not sign in any more."""
    role = connection.scalar(select(accounts.c.role).where(accounts.c.id == member_id))
    if role == "admin" and member_id == account_id:
        raise InvalidRequest("This is an administrator of the server: another one must change that role first.")


def _member(row: Row[Any], account_id: int) -> Member:
    return Member(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.held_role,
        since=row.since,
        has_second_factor=row.totp_secret is not None,
        is_first=row.id == account_id,
        is_disabled=row.disabled,
        is_joined=account_id not in (row.id, row.team_id),
    )
