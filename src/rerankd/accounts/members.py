"""The members of an account: people who sign in for themselves and share its keys, its credit and its statement.

A member is a row of `accounts` that only signs in: `team_id` names the account that pays. The account's own row is its
first member. Each person has one account, so an address signs in to one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, delete, func, select, update

from rerankd.accounts.accounts import Account, everybody, insert_account, new_account, sign_out_person
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import accounts, identities, recovery_codes
from rerankd.errors import InvalidRequest

Right = Literal["viewer", "member", "owner"]
RIGHTS: tuple[Right, ...] = get_args(Right)
"""Each role may do what those before it may."""

MAX_MEMBERS = 100
"""Of one account."""


@dataclass(frozen=True, slots=True)
class Member:
    """A person who may sign in to an account. is_first: the account bears this person's address."""

    id: int
    email: str
    name: str
    role: Right
    since: datetime
    has_second_factor: bool
    is_first: bool
    is_disabled: bool


class Members:
    """The members of the accounts of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def of(self, account_id: int) -> list[Member]:
        """The first one, then the others by e-mail address."""
        query = select(accounts).where(everybody(account_id), accounts.c.member_role != "none")
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(accounts.c.team_id.is_not(None), accounts.c.email)).all()
        return [_member(row) for row in rows]

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

    def set_role(self, account_id: int, member_id: int, role: Right, by: Actor = "operator") -> None:
        """Raises InvalidRequest if the account has no such member, or would be left without an owner."""
        with self._database.transaction() as connection:
            email = _locked(connection, account_id, member_id)
            if role != "owner":
                keep_an_owner(connection, account_id, member_id)
            connection.execute(update(accounts).where(accounts.c.id == member_id).values(member_role=role))
            write(connection, by, "member role changed", account_id, f"{email}: {role}")

    def remove(self, account_id: int, member_id: int, by: Actor = "operator") -> None:
        """Ends the member's sessions and sign-in. The keys stay with the account; the address is free again.

        Raises:
            InvalidRequest: the account has no such member, or would be left without an owner; or the member is an
                administrator of the server.
        """
        with self._database.transaction() as connection:
            email = _locked(connection, account_id, member_id)
            keep_an_owner(connection, account_id, member_id)
            _keep_administrators(connection, member_id)
            gone: dict[str, Any] = {"member_role": "none", "password": None, "totp_secret": None, "totp_step": None}
            if member_id != account_id:  # that account keeps its name
                gone["email"] = f"{email[:200]} (removed {member_id})"
            connection.execute(update(accounts).where(accounts.c.id == member_id).values(gone))
            sign_out_person(connection, member_id)
            for table in (identities, recovery_codes):
                connection.execute(delete(table).where(table.c.account_id == member_id))
            write(connection, by, "member left" if by == member_id else "member removed", account_id, email)


def add_member(connection: Connection, account_id: int, values: Mapping[str, Any], role: Right, by: Actor) -> Account:
    """Inserts a member with these columns. Raises InvalidRequest."""
    team = connection.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).first()
    if team is None or team.team_id is not None:
        raise InvalidRequest(f"There is no account {account_id} that can have members.")
    present = everybody(account_id) & (accounts.c.member_role != "none")
    if (connection.scalar(select(func.count()).select_from(accounts).where(present)) or 0) >= MAX_MEMBERS:
        raise InvalidRequest(f"An account may have at most {MAX_MEMBERS} members: remove one first.")
    account = insert_account(connection, {**values, "team_id": account_id, "member_role": role})
    write(connection, account.id if by == "owner" else by, "member joined", account_id, f"{account.email}: {role}")
    return account


def _locked(connection: Connection, account_id: int, member_id: int) -> str:
    """Locks the account, so that two owners cannot remove each other at once. Returns the member's e-mail address.

    Raises:
        InvalidRequest: the account has no such member.
    """
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
    present = (everybody(account_id), accounts.c.member_role != "none", accounts.c.id == member_id)
    email = connection.scalar(select(accounts.c.email).where(*present))
    if email is None:
        raise InvalidRequest("This account has no such member.")
    return str(email)


def keep_an_owner(connection: Connection, account_id: int, member_id: int) -> None:
    """Raises InvalidRequest if nobody else is an enabled owner of a locked account."""
    others = (everybody(account_id), accounts.c.id != member_id)
    is_owner = (accounts.c.member_role == "owner", accounts.c.disabled.is_(False))
    role = connection.scalar(select(accounts.c.member_role).where(accounts.c.id == member_id))
    if role == "owner" and connection.execute(select(accounts.c.id).where(*others, *is_owner)).first() is None:
        raise InvalidRequest("This is the only owner: make another member an owner first.")


def _keep_administrators(connection: Connection, member_id: int) -> None:
    """Raises InvalidRequest for an administrator of the server, who could not sign in any more."""
    if connection.scalar(select(accounts.c.role).where(accounts.c.id == member_id)) == "admin":
        raise InvalidRequest("This is an administrator of the server: another one must change that role first.")


def _member(row: Row[Any]) -> Member:
    return Member(
        id=row.id,
        email=row.email,
        name=row.name,
        role=row.member_role,
        since=row.created,
        has_second_factor=row.totp_secret is not None,
        is_first=row.team_id is None,
        is_disabled=row.disabled,
    )
