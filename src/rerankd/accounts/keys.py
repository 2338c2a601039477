"""API keys: which account a caller has, and which models the key may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, func, insert, or_, select, update

from rerankd.accounts.accounts import PAYS_NOTHING
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.budget import month_of
from rerankd.accounts.database import Database
from rerankd.accounts.schema import LIMITS, NO_LIMITS, accounts, keys, limits_of, months
from rerankd.accounts.tokens import new_token, token_hash
from rerankd.accounts.validation import check_budget, check_limits, read_name
from rerankd.errors import InvalidRequest, WrongKey
from rerankd.money import decimal
from rerankd.types import CallLimits

PREFIX = "rk-"

PLAYGROUND, PLAYGROUND_HINT = "Playground", "signed in"
"""The name and the hint of the key to which the calls of an account's playground are charged."""

MAX_KEYS = 100
"""Usable keys per account; revoked and expired keys are not counted."""

MAX_LISTED = 500
"""Keys in the list of an account, the newest first."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret.

    Attributes:
        hint: the first and last characters of the secret.
        models: the models that it may use; empty: all.
        last_used: to the minute.
        budget: what its calls may cost in a calendar month (UTC), in millionths; None: any amount.
        spent: what they cost in this one.
        made_by: the e-mail address of the member who made it, or of the administrator; None: not known.
    """

    id: int
    account_id: int
    name: str
    hint: str
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    models: tuple[str, ...]
    limits: CallLimits
    last_used: datetime | None
    budget: int | None = None
    spent: int = 0
    made_by: str | None = None

    def is_usable(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired. Its account may still be disabled."""
        return self.revoked is None and (self.expires is None or self.expires > now)


@dataclass(frozen=True, slots=True)
class Caller:
    """A valid key and its account, as they were when the call arrived.

    Attributes:
        models: the models that the key may use; empty: all.
        available: what the account can still spend, in millionths.
        budget, spent: of the key in this month; see `Key`.
    """

    account_id: int
    key_id: int
    key_name: str
    models: tuple[str, ...]
    key_limits: CallLimits
    account_limits: CallLimits
    available: int
    account_created: datetime
    key_last_used: datetime | None
    budget: int | None = None
    spent: int = 0

    @property
    def can_pay(self) -> bool:
        """Whether the account has credit, and the key's budget has something left."""
        return self.available > 0 and (self.budget is None or self.spent < self.budget)


VALID = (
    keys.c.revoked.is_(None),
    or_(keys.c.expires.is_(None), keys.c.expires > bindparam("now")),
    accounts.c.disabled.is_(False),
)
"""Conditions for a valid key with an enabled account, in a query with the parameter `now`."""

_IN_MONTH = (months.c.key_id == keys.c.id) & (months.c.month == bindparam("month"))
_SPENT = func.coalesce(months.c.spent, 0).label("spent")

_FIND = (
    select(
        keys.c.account_id,
        keys.c.id,
        keys.c.name,
        keys.c.models,
        *(keys.c[name].label(f"key_{name}") for name in LIMITS),
        *(accounts.c[name].label(f"account_{name}") for name in LIMITS),
        (accounts.c.balance - accounts.c.reserved).label("available"),
        accounts.c.created,
        keys.c.last_used,
        keys.c.budget,
        _SPENT,
    )
    .join_from(keys, accounts, keys.c.account_id == accounts.c.id)
    .join(months, _IN_MONTH, isouter=True)
    .where(keys.c.hash == bindparam("hash"), *VALID)
)
_MAKERS = accounts.alias("makers")
_LIST = (
    select(keys, _SPENT, _MAKERS.c.email.label("maker"))
    .join_from(keys, months, _IN_MONTH, isouter=True)
    .join(_MAKERS, keys.c.made_by == _MAKERS.c.id, isouter=True)
)


class Keys:
    """The keys of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        account_id: int,
        name: str,
        expires: datetime | None = None,
        models: Sequence[str] = (),
        limits: CallLimits = NO_LIMITS,
        budget: int | None = None,
        by: Actor = "operator",
    ) -> tuple[Key, str]:
        """Creates a key. Returns it with its secret, which is not stored.

        Raises:
            InvalidRequest: no such account, or an invalid name, limit, budget or expiry.
        """
        now = datetime.now(UTC)
        if expires is not None and expires <= now:
            raise InvalidRequest("The key would expire immediately.", [("expires", "is in the past")])
        secret = PREFIX + new_token()
        values = {
            "account_id": account_id,
            "name": read_name(name, 100),
            "hash": token_hash(secret),
            "hint": f"{secret[:7]}…{secret[-4:]}",
            "created": now,
            "expires": expires,
            "models": [read_name(model, 300) for model in models],
            **check_limits(limits),
            "budget": check_budget(budget),
            "made_by": account_id if by == "owner" else by if isinstance(by, int) else None,
        }
        with self._database.transaction() as connection:
            _check_number(connection, account_id, now)
            row = connection.execute(insert(keys).returning(*keys.c), values).one()
            write(connection, by, "key created", account_id, f"{row.name} ({row.hint})")
        return _key(row._mapping), secret

    def find(self, secret: str) -> Caller | None:
        """The owner of a secret; None if the key is unknown, revoked or expired, or its account disabled."""
        with self._database.read() as connection:
            row = connection.execute(_FIND, _found_by(token_hash(secret))).first()
        return None if row is None else _caller(row)

    def of_playground(self, account_id: int) -> Caller:
        """The key to which the calls of an account's playground are charged. It has no secret: no caller can send it.

        Raises:
            WrongKey: it was revoked, or the account is disabled.
        """
        parameters = _found_by(_playground_hash(account_id))
        with self._database.read() as connection:
            row = connection.execute(_FIND, parameters).first()
        if row is None:
            self._add_playground(account_id)
            with self._database.read() as connection:
                row = connection.execute(_FIND, parameters).first()
        if row is None:
            raise WrongKey
        return _caller(row)

    def _add_playground(self, account_id: int) -> None:
        """Adds that key, unless there is one already, which may be revoked."""
        values = {
            "account_id": account_id,
            "name": PLAYGROUND,
            "hash": _playground_hash(account_id),
            "hint": PLAYGROUND_HINT,
            "created": datetime.now(UTC),
            "models": [],
        }
        whose = select(accounts.c.id).where(accounts.c.id == account_id).with_for_update()
        with self._database.transaction() as connection:
            connection.execute(whose)
            if connection.execute(select(keys.c.id).where(keys.c.hash == values["hash"])).first() is None:
                connection.execute(insert(keys), values)

    def revoke(self, key_id: int, account_id: int | None = None, by: Actor = "operator") -> None:
        """Invalidates a key. Revoking it again changes nothing.

        Args:
            account_id: the account that must own the key; None: any.

        Raises:
            InvalidRequest: there is no such key.
        """
        whose = _one(key_id, account_id)
        with self._database.transaction() as connection:
            key = connection.execute(select(keys).where(whose)).first()
            if key is None:
                raise InvalidRequest(f"There is no key {key_id}.")
            still = keys.c.revoked.is_(None)
            changed = connection.execute(update(keys).where(whose, still).values(revoked=datetime.now(UTC)))
            if changed.rowcount:
                write(connection, by, "key revoked", key.account_id, f"{key.name} ({key.hint})")

    def set_budget(self, key_id: int, budget: int | None, account_id: int | None = None, by: Actor = "operator") -> Key:
        """Sets what the calls of a key may cost in a calendar month. Running calls are charged in any case.

        Args:
            budget: in millionths, > 0; None: any amount.
            account_id: the account that must own the key; None: any.

        Raises:
            InvalidRequest: there is no such key, or the budget is out of range.
        """
        values, whose, now = {"budget": check_budget(budget)}, _one(key_id, account_id), _this_month()
        with self._database.transaction() as connection:
            connection.execute(update(keys).where(whose).values(values))
            row = connection.execute(_LIST.where(whose), now).first()
            if row is None:
                raise InvalidRequest(f"There is no key {key_id}.")
            in_month = (months.c.key_id == key_id) & (months.c.month == now["month"])
            connection.execute(update(months).where(in_month).values(warned=None))
            key = _key(row._mapping)
            shown = "none" if budget is None else f"{decimal(budget)} a month"
            write(connection, by, "budget set", key.account_id, f"{key.name} ({key.hint}): {shown}")
        return key

    def of_account(self, account_id: int) -> list[Key]:
        """The newest first, including revoked ones, without the playground's.

        Of more than MAX_LISTED, revoked keys are left out first.
        """
        query = _LIST.where(keys.c.account_id == account_id, keys.c.hint != PLAYGROUND_HINT)
        query = query.order_by(keys.c.revoked.is_not(None), keys.c.id.desc()).limit(MAX_LISTED)
        with self._database.read() as connection:
            found = [_key(row._mapping) for row in connection.execute(query, _this_month())]
        return sorted(found, key=lambda key: -key.id)

    def all(self) -> list[Key]:
        """The keys of all accounts, the newest first, including revoked ones."""
        with self._database.read() as connection:
            return [_key(row._mapping) for row in connection.execute(_LIST.order_by(keys.c.id.desc()), _this_month())]


def _one(key_id: int, account_id: int | None) -> ColumnElement[bool]:
    """Condition for a key, of one account or of any."""
    return keys.c.id == key_id if account_id is None else (keys.c.id == key_id) & (keys.c.account_id == account_id)


def _found_by(key_hash: bytes) -> dict[str, Any]:
    """The parameters of _FIND."""
    now = datetime.now(UTC)
    return {"hash": key_hash, "now": now, "month": month_of(now)}


def _this_month() -> dict[str, int]:
    """The parameter of _LIST."""
    return {"month": month_of(datetime.now(UTC))}


def _check_number(connection: Connection, account_id: int, now: datetime) -> None:
    """Locks the account, so that its keys can be counted before one is added.

    Raises:
        InvalidRequest: no such account, or it has MAX_KEYS usable keys already.
    """
    query = select(accounts.c.team_id).where(accounts.c.id == account_id).with_for_update()
    account = connection.execute(query).first()
    if account is None:
        raise InvalidRequest(f"There is no account {account_id}.")
    if account.team_id is not None:
        raise InvalidRequest(PAYS_NOTHING)
    usable = (keys.c.account_id == account_id) & keys.c.revoked.is_(None) & (keys.c.hint != PLAYGROUND_HINT)
    usable &= or_(keys.c.expires.is_(None), keys.c.expires > now)
    number = connection.scalar(select(func.count()).select_from(keys).where(usable)) or 0
    if number >= MAX_KEYS:
        raise InvalidRequest(f"An account may have at most {MAX_KEYS} usable keys: revoke one first.")


def _playground_hash(account_id: int) -> bytes:
    """One for each account, in place of the hash of a secret; nobody can find a text with this hash."""
    return b"playground".ljust(24, b"\0") + account_id.to_bytes(8, "big")


def _caller(row: Sequence[Any]) -> Caller:
    account_id, key_id, name, models, *limits, available, created, last_used, budget, spent = row
    return Caller(
        account_id,
        key_id,
        name,
        tuple(models),
        CallLimits(*limits[:3]),
        CallLimits(*limits[3:]),
        available,
        created,
        last_used,
        budget,
        spent,
    )


def _key(row: RowMapping) -> Key:
    return Key(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        hint=row["hint"],
        created=row["created"],
        expires=row["expires"],
        revoked=row["revoked"],
        models=tuple(row["models"]),
        limits=limits_of(row),
        last_used=row["last_used"],
        budget=row["budget"],
        spent=row.get("spent", 0),
        made_by=row.get("maker"),
    )
