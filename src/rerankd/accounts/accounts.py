"""Accounts and their passwords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, RowMapping, Select, delete, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.passwords import Passwords
from rerankd.accounts.schema import NO_LIMITS, accounts, confirmations, limits_of, links, memberships, sessions
from rerankd.accounts.validation import check_limits, read_email, read_name, storable
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits

Role = Literal["admin", "user"]
MemberRole = Literal["owner", "member", "viewer", "none"]
"""What a person may do in an account; none: this person left it."""

ENABLED_ADMINS = select(accounts.c.id).where(accounts.c.role == "admin", accounts.c.disabled.is_(False))

_TEAMS = accounts.alias("teams")
_IN_FIRST = (accounts.c.member_role != "none") & ~exists().where(
    _TEAMS.c.id == accounts.c.team_id, _TEAMS.c.disabled.is_(True)
)
_JOINED = accounts.alias("joined")
_IN_ANOTHER = exists().where(
    memberships.c.person_id == accounts.c.id,
    memberships.c.role != "none",
    memberships.c.account_id == _JOINED.c.id,
    _JOINED.c.disabled.is_(False),
)
CAN_SIGN_IN = accounts.c.disabled.is_(False) & (_IN_FIRST | _IN_ANOTHER)
"""Condition for a row whose person may sign in: some account is left to act in."""

PAYS_NOTHING = "This is a member of another account, which pays: name that account."


@dataclass(frozen=True, slots=True)
class Account:
    """An account that calls are charged to. Money in millionths.

    Attributes:
        balance: credit less charges.
        reserved: the cost of running calls.
        has_second_factor: whether a sign-in needs a code of an authenticator app, too.
        has_password: without one, its owner signs in at a provider, or nobody does.
        is_deleted: only its number and its entries are left.
        team_id: the account that this one is a member of, and which pays; None: it is an account of its own.
        member_role: what its person may do in that account, or in its own; `Membership` has the others.
        limits: the account's own; None where the price's or the server's apply.
    """

    id: int
    email: str
    name: str
    role: Role
    created: datetime
    disabled: bool
    balance: int
    reserved: int
    limits: CallLimits
    has_second_factor: bool = False
    has_password: bool = True
    is_deleted: bool = False
    team_id: int | None = None
    member_role: MemberRole = "owner"

    @property
    def available(self) -> int:
        """The credit that is left for further calls."""
        return self.balance - self.reserved


class Accounts:
    """The accounts of one database. Each method is one transaction."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database = database
        self._passwords = passwords

    def create(
        self,
        email: str,
        name: str = "",
        password: str | None = None,
        role: Role = "user",
        limits: CallLimits = NO_LIMITS,
        by: Actor = "operator",
    ) -> Account:
        """Creates an account.

        Args:
            name: default: the e-mail address.
            password: None: nobody can sign in; the account's keys work.
            by: who creates it, for the log; so in the methods below.

        Raises:
            InvalidRequest: the e-mail address is malformed or has an account already, or the name or password is
                invalid.
        """
        hashed = None if password is None else self._passwords.hash(password)
        values = new_account(email, name, hashed, role, limits)
        with self._database.transaction() as connection:
            account = insert_account(connection, values)
            write(connection, by, "account created", account.id, role)
            return account

    def by_id(self, account_id: int) -> Account | None:
        """None if there is none."""
        with self._database.read() as connection:
            return _account(connection.execute(select(accounts).where(accounts.c.id == account_id)).first())

    def by_email(self, email: str) -> Account | None:
        """Ignores case."""
        with self._database.read() as connection:
            return _account(connection.execute(select_by_email(email)).first())

    def may_sign_in(self, account_id: int) -> bool:
        with self._database.read() as connection:
            found = select(accounts.c.id).where(accounts.c.id == account_id, CAN_SIGN_IN)
            return connection.execute(found).first() is not None

    def all(self) -> list[Account]:
        """Sorted by e-mail address."""
        with self._database.read() as connection:
            return [account_of(row._mapping) for row in connection.execute(select(accounts).order_by(accounts.c.email))]

    def set_role(self, account_id: int, role: Role, by: Actor = "operator") -> None:
        """Raises InvalidRequest if no administrator would be left, or for a member of another account."""
        with self._database.transaction() as connection:
            if role != "admin":
                keep_an_admin(connection, account_id)
            elif connection.scalar(select(accounts.c.team_id).where(accounts.c.id == account_id)) is not None:
                raise InvalidRequest("A member of another account cannot be an administrator.")
            update_account(connection, account_id, {"role": role})
            write(connection, by, "role changed", account_id, role)

    def set_limits(self, account_id: int, limits: CallLimits, by: Actor = "operator") -> None:
        """Raises InvalidRequest if a limit is less than 1."""
        values = check_limits(limits)
        with self._database.transaction() as connection:
            update_account(connection, account_id, values)
            shown = ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
            write(connection, by, "limits set", account_id, shown or "none")

    def enable(self, account_id: int, by: Actor = "operator") -> None:
        """Raises InvalidRequest for a deleted account."""
        with self._database.transaction() as connection:
            refuse_deleted(connection, account_id)
            update_account(connection, account_id, {"disabled": False})
            write(connection, by, "account enabled", account_id)

    def disable(self, account_id: int, by: Actor = "operator") -> None:
        """Invalidates the account's keys, ends the sessions of its members, and prevents their sign-in.

        Raises:
            InvalidRequest: no administrator would be left.
        """
        with self._database.transaction() as connection:
            keep_an_admin(connection, account_id)
            update_account(connection, account_id, {"disabled": True})
            sign_out(connection, account_id)
            write(connection, by, "account disabled", account_id)

    def set_password(self, account_id: int, password: str, by: Actor = "operator") -> None:
        """Signs the person out everywhere.

        Raises:
            InvalidRequest: too short or too long.
        """
        hashed = self._passwords.hash(password)
        with self._database.transaction() as connection:
            update_account(connection, account_id, {"password": hashed})
            sign_out_person(connection, account_id)
            write(connection, by, "password set", account_id)

    def check_password(self, email: str, password: str) -> Account | None:
        """Returns the account if the password is right and its person may sign in.

        Takes as long for an address without an account, so its time does not reveal which addresses have one.
        """
        with self._database.read() as connection:
            found = select_by_email(email).add_columns(CAN_SIGN_IN.label("can_sign_in"))
            row = connection.execute(found).first()
        is_right = self._passwords.matches(password, row.password if row else None)
        if not is_right or row is None or not row.can_sign_in:
            return None
        if rehashed := self._passwords.rehash(password, row.password):
            self._update(row.id, {"password": rehashed})
        return _account(row)

    def _update(self, account_id: int, values: Mapping[str, Any]) -> None:
        with self._database.transaction() as connection:
            update_account(connection, account_id, values)


def new_account(
    email: str, name: str, hashed_password: str | None, role: Role = "user", limits: CallLimits = NO_LIMITS
) -> dict[str, Any]:
    """The columns of an account that is created now. Raises InvalidRequest."""
    email = read_email(email)
    return {
        "email": email,
        "name": read_name(name or email, 200),
        "password": hashed_password,
        "role": role,
        "created": datetime.now(UTC),
        **check_limits(limits),
    }


def insert_account(connection: Connection, values: Mapping[str, Any]) -> Account:
    """Raises InvalidRequest if the e-mail address has an account already."""
    try:
        row = connection.execute(insert(accounts).returning(*accounts.c), values).one()
    except IntegrityError:
        raise has_account(values["email"]) from None
    return account_of(row._mapping)


def has_account(email: str) -> InvalidRequest:
    return InvalidRequest(f"{email} has an account already.", [("email", "has an account already")])


def select_by_email(email: str) -> Select[Any]:
    return select(accounts).where(accounts.c.email == storable(email.strip().lower()))


def account_of(row: RowMapping) -> Account:
    """Converts a row with the columns of `accounts`."""
    return Account(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        role=row["role"],
        created=row["created"],
        disabled=row["disabled"],
        balance=row["balance"],
        reserved=row["reserved"],
        limits=limits_of(row),
        has_second_factor=row["totp_secret"] is not None,
        has_password=row["password"] is not None,
        is_deleted=row["deleted"] is not None,
        team_id=row["team_id"],
        member_role=row["member_role"],
    )


def _account(row: Row[Any] | None) -> Account | None:
    return None if row is None else account_of(row._mapping)


def keep_an_admin(connection: Connection, account_id: int) -> None:
    """Raises InvalidRequest if this is the only administrator."""
    # Locked in one order, so that two administrators cannot remove each other at once.
    if set(connection.scalars(ENABLED_ADMINS.order_by(accounts.c.id).with_for_update())) == {account_id}:
        raise InvalidRequest("This is the only administrator: make another one first.")


def refuse_deleted(connection: Connection, account_id: int) -> None:
    """Raises InvalidRequest for a deleted account."""
    deleted = select(accounts.c.id).where(accounts.c.id == account_id, accounts.c.deleted.is_not(None))
    if connection.execute(deleted).first() is not None:
        raise InvalidRequest("This account was deleted: nobody can use it again.")


def update_account(connection: Connection, account_id: int, values: Mapping[str, Any]) -> None:
    """Raises InvalidRequest if there is no such account."""
    changed = connection.execute(update(accounts).where(accounts.c.id == account_id).values(values))
    if not changed.rowcount:
        raise InvalidRequest(f"There is no account {account_id}.")


def sign_out(connection: Connection, account_id: int) -> None:
    """Ends the sessions of an account and of its members, their links, and their sign-ins that are not confirmed."""
    people = connection.scalars(select(accounts.c.id).where(everybody(account_id))).all()
    for one in people:
        sign_out_person(connection, one)
    connection.execute(delete(sessions).where(sessions.c.payer_id == account_id))


def sign_out_person(connection: Connection, account_id: int) -> None:
    """The same of one person: an account, or a member of one."""
    for table in (confirmations, links, sessions):
        connection.execute(delete(table).where(table.c.account_id == account_id))


def everybody(account_id: int) -> ColumnElement[bool]:
    """Condition for the rows of an account and its members."""
    return or_(accounts.c.id == account_id, accounts.c.team_id == account_id)
