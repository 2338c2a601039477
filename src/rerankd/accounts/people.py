"""People: their accounts, passwords, sign-ins and invitations."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Row, RowMapping, Select, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from rerankd.accounts.database import Database
from rerankd.accounts.schema import NO_LIMITS, accounts, invites, limits_of, sessions
from rerankd.accounts.validation import check_limits, read_email, read_name, storable
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits

Role = Literal["admin", "user"]

SESSION = timedelta(days=14)
INVITE = timedelta(days=14)
PASSWORD_LENGTH = range(8, 1025)
"""In characters; a password takes time to hash by its length, too."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom calls are charged to. Money in millionths.

    balance: credit less charges. reserved: what the calls that run now may cost. limits: its own; None where the
    model's or the server's hold.
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

    @property
    def available(self) -> int:
        """What is left for further calls."""
        return self.balance - self.reserved


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. `csrf`: what each form of theirs must carry."""

    account: Account
    csrf: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation that is still good; `email`: the only one that may use it, None for anybody."""

    email: str | None
    created_by: int
    expires: datetime


class People:
    """The accounts of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hasher = PasswordHasher()  # argon2id, with the parameters of RFC 9106 for little memory

    def create(
        self,
        email: str,
        name: str = "",
        password: str | None = None,
        role: Role = "user",
        limits: CallLimits = NO_LIMITS,
    ) -> Account:
        """A new account.

        Args:
            name: the e-mail address if left out.
            password: None: nobody can sign in; its keys work.

        Raises:
            InvalidRequest: not an e-mail address, one that has an account, or a bad name or password.
        """
        values = self._new_account(email, name, password, role, limits)
        with self._database.transaction() as connection:
            return _insert(connection, values)

    def by_id(self, account_id: int) -> Account | None:
        with self._database.read() as connection:
            return _account(connection.execute(select(accounts).where(accounts.c.id == account_id)).first())

    def by_email(self, email: str) -> Account | None:
        """Case makes no difference."""
        with self._database.read() as connection:
            return _account(connection.execute(_by_email(email)).first())

    def all(self) -> list[Account]:
        """Sorted by e-mail address."""
        with self._database.read() as connection:
            return [account_of(row._mapping) for row in connection.execute(select(accounts).order_by(accounts.c.email))]

    def set_name(self, account_id: int, name: str) -> None:
        self._set(account_id, {"name": read_name(name, 200)})

    def set_role(self, account_id: int, role: Role) -> None:
        """Raises InvalidRequest where no administrator would be left."""
        self._set(account_id, {"role": role}, keep_admin=role != "admin")

    def set_limits(self, account_id: int, limits: CallLimits) -> None:
        """Raises InvalidRequest where one is less than 1."""
        self._set(account_id, check_limits(limits))

    def set_disabled(self, account_id: int, disabled: bool) -> None:
        """A disabled account's keys do not work, and nobody can sign in; who was signed in no longer is.

        Raises:
            InvalidRequest: no administrator would be left.
        """
        self._set(account_id, {"disabled": disabled}, sign_out=disabled, keep_admin=disabled)

    def set_password(self, account_id: int, password: str) -> None:
        """Signs the account out everywhere.

        Raises:
            InvalidRequest: too short or too long.
        """
        self._set(account_id, {"password": self._hash(password)}, sign_out=True)

    def check_password(self, email: str, password: str) -> Account | None:
        """The account, if this is its password and it is not disabled.

        Takes as long for an address that has no account, so that nobody learns which have one.
        """
        with self._database.read() as connection:
            row = connection.execute(_by_email(email)).first()
        decoy = self._decoy  # made even if it is not needed: the first time takes long
        try:
            self._hasher.verify((row and row.password) or decoy, password)
        except VerificationError:
            return None
        if row is None or row.password is None or row.disabled:
            return None
        if self._hasher.check_needs_rehash(row.password):
            self._set(row.id, {"password": self._hasher.hash(password)})
        return _account(row)

    def open_session(self, account_id: int) -> str:
        """Signs an account in: a secret token, good for 14 days, of which only a hash is kept."""
        token, now = secrets.token_urlsafe(32), datetime.now(UTC)
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.expires <= now))
            connection.execute(
                insert(sessions),
                {
                    "hash": _hash(token),
                    "account_id": account_id,
                    "csrf": secrets.token_urlsafe(32),
                    "expires": now + SESSION,
                },
            )
        return token

    def session(self, token: str) -> Session | None:
        """Whose token this is; None if it is nobody's, or no longer."""
        query = select(accounts, sessions.c.csrf).join_from(sessions, accounts)
        query = query.where(sessions.c.hash == _hash(token), sessions.c.expires > datetime.now(UTC))
        with self._database.read() as connection:
            row = connection.execute(query.where(accounts.c.disabled.is_(False))).first()
        return None if row is None else Session(account_of(row._mapping), row.csrf)

    def close_session(self, token: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.hash == _hash(token)))

    def close_all(self, account_id: int) -> None:
        """Signs an account out everywhere."""
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.account_id == account_id))

    def create_invite(self, by: int, email: str | None = None) -> str:
        """A secret token that makes one account, within 14 days; only a hash of it is kept.

        Args:
            by: the inviting account.
            email: the only one that may use it; None for anybody.

        Raises:
            InvalidRequest: not an e-mail address, or one that has an account.
        """
        token, now = secrets.token_urlsafe(32), datetime.now(UTC)
        email = read_email(email) if email is not None else None
        with self._database.transaction() as connection:
            if email is not None and connection.execute(_by_email(email)).first():
                raise _taken(email)
            connection.execute(
                insert(invites),
                {"hash": _hash(token), "email": email, "created_by": by, "created": now, "expires": now + INVITE},
            )
        return token

    def invite(self, token: str) -> Invite | None:
        """What a token is good for; None if it was used, is nobody's, or no longer; or if who invited is no longer
        an administrator, or is disabled."""
        with self._database.read() as connection:
            return _invite(connection, token)

    def use_invite(self, token: str, email: str, name: str, password: str) -> Account:
        """A new account, and the token is used up.

        Raises:
            InvalidRequest: the token is not good, or not for this address; or as `create` says.
        """
        values = self._new_account(email, name, password, "user", NO_LIMITS)
        with self._database.transaction() as connection:
            invite = _invite(connection, token, lock=True)
            if invite is None:
                raise InvalidRequest("This invitation is not valid, or no longer. Ask for a new one.")
            if invite.email not in (None, values["email"]):
                raise InvalidRequest("This invitation is for another e-mail address.", [("email", "another one")])
            account = _insert(connection, values)
            connection.execute(update(invites).where(invites.c.hash == _hash(token)).values(used_by=account.id))
            return account

    def _new_account(
        self, email: str, name: str, password: str | None, role: Role, limits: CallLimits
    ) -> dict[str, Any]:
        email = read_email(email)
        return {
            "email": email,
            "name": read_name(name or email, 200),
            "password": None if password is None else self._hash(password),
            "role": role,
            "created": datetime.now(UTC),
            **check_limits(limits),
        }

    def _set(
        self, account_id: int, values: Mapping[str, Any], sign_out: bool = False, keep_admin: bool = False
    ) -> None:
        with self._database.transaction() as connection:
            # Locked in one order, so that two administrators cannot take each other's place away at once.
            if keep_admin and set(connection.scalars(_ADMINS.order_by(accounts.c.id).with_for_update())) == {
                account_id
            }:
                raise InvalidRequest("This is the only administrator: make another one first.")
            changed = connection.execute(update(accounts).where(accounts.c.id == account_id).values(values))
            if not changed.rowcount:
                raise InvalidRequest(f"There is no account {account_id}.")
            if sign_out:
                connection.execute(delete(sessions).where(sessions.c.account_id == account_id))

    def _hash(self, password: str) -> str:
        check_password_length(password)
        return self._hasher.hash(password)

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())


_ADMINS = select(accounts.c.id).where(accounts.c.role == "admin", accounts.c.disabled.is_(False))


def check_password_length(password: str) -> None:
    """Raises InvalidRequest."""
    if len(password) not in PASSWORD_LENGTH:
        message = f"must have from {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters"
        raise InvalidRequest(f"The password {message}.", [("password", message)])


def account_of(row: RowMapping) -> Account:
    """From a row that has the columns of `accounts`."""
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
    )


def _account(row: Row[Any] | None) -> Account | None:
    return None if row is None else account_of(row._mapping)


def _by_email(email: str) -> Select[Any]:
    return select(accounts).where(accounts.c.email == storable(email.strip().lower()))


def _insert(connection: Connection, values: Mapping[str, Any]) -> Account:
    try:
        row = connection.execute(insert(accounts).returning(*accounts.c), values).one()
    except IntegrityError:
        raise _taken(values["email"]) from None
    return account_of(row._mapping)


def _taken(email: str) -> InvalidRequest:
    return InvalidRequest(f"{email} has an account already.", [("email", "has an account already")])


def _invite(connection: Connection, token: str, *, lock: bool = False) -> Invite | None:
    columns = (invites.c.email, invites.c.created_by, invites.c.expires)
    query = select(*columns).where(invites.c.hash == _hash(token), invites.c.used_by.is_(None))
    query = query.where(invites.c.expires > datetime.now(UTC), invites.c.created_by.in_(_ADMINS))
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else Invite(*row)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
