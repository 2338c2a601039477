"""What is charged, to the millionth: reservations while calls run, and entries that nobody can change afterwards.

A call reserves what it costs, then settles or releases it. Each is one transaction that holds the lock of the
account's row, so a balance always is the sum of its entries, and what is reserved the sum of its reservations. A
reservation whose process died expires.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Connection, Row, Select, bindparam, delete, exists, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from rerankd.accounts.database import Database
from rerankd.accounts.fields import MAX_AMOUNT, storable
from rerankd.accounts.keys import VALID, Caller
from rerankd.accounts.schema import accounts, entries, keys, quotas, reservations
from rerankd.errors import InvalidRequest, OutOfCredit, RateLimited, Unauthorized
from rerankd.rates import Rate

CHARGED_ONCE_IN = timedelta(hours=24)
"""A call that comes again within this time, with the same id and content, is not charged again."""

LAST_USED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a running call may cost. is_repeat: it was charged before, and costs nothing."""

    id: str
    caller: Caller
    rate: Rate
    dialect: str | None
    request_id: str
    tokens: int
    free_tokens: int
    billed_tokens: int
    cost: int
    is_repeat: bool
    idempotency_key: bytes
    occurrence: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call cost, in millionths. tokens: free and billed ones; those of a repeat are neither."""

    cost: int
    free_tokens: int
    billed_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Quota:
    """Free tokens of one account for one model. left: neither used nor reserved; 0 when expired."""

    granted: int
    used: int
    left: int
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Credit:
    """What was added to an account, or, below zero, taken. In millionths. by: the account that did it."""

    id: int
    account_id: int
    amount: int
    balance_after: int
    time: datetime
    note: str | None
    by: int | None


class Ledger:
    """The money of one database, for any number of threads and processes. Each method is one transaction.

    Args:
        lease_s: how long a reservation lives that is not renewed.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, lease_s: float = 60, clock: Callable[[], float] = time.time) -> None:
        self.lease_s = lease_s
        self._database = database
        self._clock = clock
        self._holder = uuid4().hex

    def reserve(
        self,
        caller: Caller,
        rate: Rate,
        tokens: int,
        *,
        request_id: str,
        fingerprint: bytes | str,
        key_concurrency: int | None = None,
        account_concurrency: int | None = None,
        dialect: str | None = None,
    ) -> Reservation:
        """Sets aside what a call costs: free tokens as long as there are any, then credit.

        A call that was charged in the last 24 hours under the same request_id and fingerprint costs nothing.

        Args:
            rate: as it is when the call begins; its `model` names the quota.
            fingerprint: of everything that the call asks.
            key_concurrency, account_concurrency: how many calls of the key, of the account may run; None: any number.

        Raises:
            Unauthorized: the key is not valid any more.
            RateLimited: as many run.
            OutOfCredit: there is not enough left. Nothing is reserved.
        """
        now, request_id = self._now(), storable(request_id)
        idempotency_key = _idempotency_key(caller.account_id, request_id, fingerprint)
        with self._database.transaction() as connection:
            account = _lock(connection, caller.account_id, now)
            state = connection.execute(
                _STATE,
                {
                    "account": caller.account_id,
                    "key": caller.key_id,
                    "model": rate.model,
                    "idempotency_key": idempotency_key,
                    "now": now,
                },
            ).one()
            if not state.key_is_valid:
                raise Unauthorized(missing=False)
            _check_concurrency("API key", state.key_running, key_concurrency)
            _check_concurrency("account", state.account_running, account_concurrency)
            is_repeat = state.last_charged is not None and now - state.last_charged < CHARGED_ONCE_IN
            chargeable = 0 if is_repeat else tokens
            free = min(chargeable, _free_left(rate, caller.account_created, state.used, state.reserved, now))
            cost = rate.cost(chargeable - free)
            available = account.balance - account.reserved
            if cost and available < cost:
                raise OutOfCredit(available, cost, rate.currency)
            reservation = Reservation(
                id=uuid4().hex,
                caller=caller,
                rate=rate,
                dialect=dialect,
                request_id=request_id,
                tokens=tokens,
                free_tokens=free,
                billed_tokens=chargeable - free,
                cost=cost,
                is_repeat=is_repeat,
                idempotency_key=idempotency_key,
                occurrence=state.occurrences,
            )
            self._set_aside(connection, reservation, now, has_quota=state.used is not None)
        return reservation

    def settle(self, reservation: Reservation) -> Charge:
        """Charges a call that succeeded, even if its reservation expired meanwhile.

        Charges nothing if the same call was charged since: settling twice charges once.
        """
        now, caller, rate = self._now(), reservation.caller, reservation.rate
        with self._database.transaction() as connection:
            account = connection.execute(_LOCK, {"account": caller.account_id, "now": now}).one()
            freed = connection.execute(_FREE, {"of_id": reservation.id}).all()
            entry = {
                "account_id": caller.account_id,
                "kind": "charge",
                "amount": -reservation.cost,
                "balance_after": account.balance - reservation.cost,
                "time": now,
                "key_id": caller.key_id,
                "model": rate.model,
                "dialect": reservation.dialect,
                "request_id": reservation.request_id,
                "tokens": reservation.tokens,
                "free_tokens": reservation.free_tokens,
                "billed_tokens": reservation.billed_tokens,
                "price": format(rate.input_price, "f"),
                "currency": rate.currency,
                "idempotency_key": reservation.idempotency_key,
                "occurrence": reservation.occurrence,
            }
            if reservation.is_repeat or not connection.execute(_CHARGE[connection.dialect.name], entry).first():
                _take_back(connection, caller.account_id, freed)
                return Charge(0, 0, 0, reservation.tokens)
            _take_back(connection, caller.account_id, freed, balance=-reservation.cost)
            _change_quota(connection, caller.account_id, rate.model, used=reservation.free_tokens)
            if caller.key_last_used is None or now - caller.key_last_used >= LAST_USED_STEP:
                connection.execute(_USE_KEY, {"key": caller.key_id, "now": now})
        return Charge(reservation.cost, reservation.free_tokens, reservation.billed_tokens, reservation.tokens)

    def release(self, reservation: Reservation) -> None:
        """Charges nothing. Releasing what was released or settled changes nothing."""
        account_id = reservation.caller.account_id
        with self._database.transaction() as connection:
            connection.execute(_LOCK, {"account": account_id, "now": self._now()})
            _take_back(connection, account_id, connection.execute(_FREE, {"of_id": reservation.id}).all())

    def renew(self) -> None:
        """Gives all reservations that this ledger made, and that live, a new lease. To be called well within one."""
        now = self._now()
        with self._database.transaction() as connection:
            connection.execute(_RENEW, {"of_holder": self._holder, "now": now, "until": now + self._lease})

    def sweep(self) -> None:
        """Frees the reservations that expired, whosever they were."""
        now = self._now()
        expired = select(reservations.c.account_id).distinct().where(reservations.c.expires <= now)
        with self._database.read() as connection:
            account_ids = connection.scalars(expired.order_by(reservations.c.account_id)).all()
        for account_id in account_ids:
            with self._database.transaction() as connection:
                _lock(connection, account_id, now)

    def add_credits(self, account_id: int, micro: int, note: str = "", by: int | None = None) -> Credit:
        """Adds to an account's balance, in millionths; below zero to correct it.

        Args:
            by: the account that does it; None: whoever runs the server.

        Raises:
            InvalidRequest: no such account, nothing, or a thousand million or more.
        """
        if not 0 < abs(micro) < MAX_AMOUNT:
            raise InvalidRequest("The amount must be less than 1000000000, and not 0.", [("amount", "out of range")])
        now = self._now()
        with self._database.transaction() as connection:
            account = connection.execute(_LOCK, {"account": account_id, "now": now}).first()
            if account is None:
                raise InvalidRequest(f"There is no account {account_id}.")
            entry = {
                "account_id": account_id,
                "kind": "credit",
                "amount": micro,
                "balance_after": account.balance + micro,
                "time": now,
                "note": storable(note) or None,
                "made_by": by,
            }
            entry_id = connection.execute(_CREDIT, entry).scalar_one()
            _change_account(connection, account_id, balance=micro)
        return Credit(entry_id, account_id, micro, account.balance + micro, now, entry["note"], by)

    def quota(self, account_id: int, rate: Rate) -> Quota:
        """The free tokens of an account under a rate.

        Raises:
            InvalidRequest: no such account.
        """
        of_model = (quotas.c.account_id == accounts.c.id) & (quotas.c.model == rate.model)
        query = select(accounts.c.created, quotas.c.used, quotas.c.reserved).join_from(
            accounts, quotas, of_model, isouter=True
        )
        with self._database.read() as connection:
            row = connection.execute(query.where(accounts.c.id == account_id)).first()
        if row is None:
            raise InvalidRequest(f"There is no account {account_id}.")
        left = _free_left(rate, row.created, row.used, row.reserved, self._now())
        return Quota(rate.free_tokens, row.used or 0, left, _free_until(rate, row.created))

    def check(self) -> list[str]:
        """What does not add up, a sentence each; empty unless something else than this program wrote."""
        wrong = []
        with self._database.read() as connection:
            for what, kept_query, summed_query in _TALLIES:
                kept, summed = (_tally(connection, query) for query in (kept_query, summed_query))
                for key in sorted(kept.keys() | summed.keys()):
                    if kept[key] != summed[key]:
                        whose = ", ".join(map(str, key))
                        wrong.append(f"Account {whose}: {what} is {kept[key]}, but adds up to {summed[key]}.")
            for entry in connection.execute(_BREAKS):
                wrong.append(
                    f"Entry {entry.id}: balance_after is {entry.balance_after}, but adds up to {entry.summed}."
                )
        return wrong

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    def _set_aside(self, connection: Connection, reservation: Reservation, now: datetime, *, has_quota: bool) -> None:
        account_id, model = reservation.caller.account_id, reservation.rate.model
        row = {
            "id": reservation.id,
            "account_id": account_id,
            "key_id": reservation.caller.key_id,
            "holder": self._holder,
            "model": model,
            "cost": reservation.cost,
            "free_tokens": reservation.free_tokens,
            "expires": now + self._lease,
        }
        connection.execute(_RESERVE, row)
        _change_account(connection, account_id, reserved=reservation.cost)
        if has_quota or not reservation.free_tokens:
            _change_quota(connection, account_id, model, reserved=reservation.free_tokens)
        else:
            quota = {"account_id": account_id, "model": model, "used": 0, "reserved": reservation.free_tokens}
            connection.execute(_OPEN_QUOTA, quota)

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)


# A row of `accounts` is locked before anything of that account is written. (SQLite locks the whole database, and
# leaves FOR UPDATE out.) The statements are built once.

_LOCK = (
    select(
        accounts.c.balance,
        accounts.c.reserved,
        exists()
        .where(reservations.c.account_id == accounts.c.id, reservations.c.expires <= bindparam("now"))
        .label("has_expired"),
    )
    .where(accounts.c.id == bindparam("account"))
    .with_for_update(key_share=True, of=accounts)
)

_RUNNING = (
    select(
        func.count().label("account_running"),
        func.count().filter(reservations.c.key_id == bindparam("key")).label("key_running"),
    )
    .where(reservations.c.account_id == bindparam("account"), reservations.c.expires > bindparam("now"))
    .subquery()
)
_QUOTA = (
    select(func.max(quotas.c.used).label("used"), func.max(quotas.c.reserved).label("reserved"))
    .where(quotas.c.account_id == bindparam("account"), quotas.c.model == bindparam("model"))
    .subquery()
)
_CHARGED = (
    select(func.max(entries.c.time).label("last_charged"), func.count().label("occurrences"))
    .where(entries.c.idempotency_key == bindparam("idempotency_key"))
    .subquery()
)
_KEY_IS_VALID = exists().where(keys.c.id == bindparam("key"), accounts.c.id == keys.c.account_id, *VALID)
# Always one row: the key, what runs, the quota (nulls where there is none), when the same call was charged.
_STATE = select(_KEY_IS_VALID.label("key_is_valid"), _RUNNING, _QUOTA, _CHARGED).select_from(
    _RUNNING.join(_QUOTA, true()).join(_CHARGED, true())
)

_RESERVE = insert(reservations)
_FREED = (reservations.c.model, reservations.c.cost, reservations.c.free_tokens)
_FREE = delete(reservations).where(reservations.c.id == bindparam("of_id")).returning(*_FREED)
_RENEW = (
    update(reservations)
    .where(reservations.c.holder == bindparam("of_holder"), reservations.c.expires > bindparam("now"))
    .values(expires=bindparam("until"))
)
# Skips what is being renewed: `renew` holds no account's lock, and waiting for it could be mutual.
_EXPIRED = (
    select(reservations.c.id)
    .where(reservations.c.account_id == bindparam("account"), reservations.c.expires <= bindparam("now"))
    .with_for_update(skip_locked=True)
)
_EXPIRE = delete(reservations).where(reservations.c.id.in_(_EXPIRED)).returning(*_FREED)

_CHANGE_ACCOUNT = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(
        balance=accounts.c.balance + bindparam("add_balance"),
        reserved=accounts.c.reserved + bindparam("add_reserved"),
    )
)
_OPEN_QUOTA = insert(quotas)
_CHANGE_QUOTA = (
    update(quotas)
    .where(quotas.c.account_id == bindparam("account"), quotas.c.model == bindparam("of_model"))
    .values(used=quotas.c.used + bindparam("add_used"), reserved=quotas.c.reserved + bindparam("add_reserved"))
)
_USE_KEY = update(keys).where(keys.c.id == bindparam("key")).values(last_used=bindparam("now"))
_CREDIT = insert(entries).returning(entries.c.id)
_CHARGE = {
    module.dialect.name: module.insert(entries).on_conflict_do_nothing().returning(entries.c.id)
    for module in (sqlite, postgresql)
}


def _sums(column: Column[int], *by: Column[Any]) -> Select[Any]:
    return select(*by, func.sum(column)).where(by[-1].is_not(None)).group_by(*by)


_TALLIES = (
    (
        "balance",
        select(accounts.c.id, accounts.c.balance),
        _sums(entries.c.amount, entries.c.account_id),
    ),
    (
        "reserved credit",
        select(accounts.c.id, accounts.c.reserved),
        _sums(reservations.c.cost, reservations.c.account_id),
    ),
    (
        "free tokens used",
        select(quotas.c.account_id, quotas.c.model, quotas.c.used),
        _sums(entries.c.free_tokens, entries.c.account_id, entries.c.model),
    ),
    (
        "free tokens reserved",
        select(quotas.c.account_id, quotas.c.model, quotas.c.reserved),
        _sums(reservations.c.free_tokens, reservations.c.account_id, reservations.c.model),
    ),
)
"""What is kept, and what it must be the sum of: the last column of each, by the other ones."""

_RUN = func.sum(entries.c.amount).over(partition_by=entries.c.account_id, order_by=entries.c.id).label("summed")
_RUNS = select(entries.c.id, entries.c.account_id, entries.c.balance_after, _RUN).subquery()
_BREAKS = select(_RUNS).where(_RUNS.c.balance_after != _RUNS.c.summed).order_by(_RUNS.c.id)


def _tally(connection: Connection, query: Select[Any]) -> Counter[tuple[Any, ...]]:
    return Counter({tuple(key): int(value) for *key, value in connection.execute(query)})


def _lock(connection: Connection, account_id: int, now: datetime) -> Row[Any]:
    """Locks an account until the transaction ends, and frees what expired: its balance, and what is reserved."""
    which = {"account": account_id, "now": now}
    row = connection.execute(_LOCK, which).one()
    if row.has_expired:
        _take_back(connection, account_id, connection.execute(_EXPIRE, which).all())
        row = connection.execute(_LOCK, which).one()
    return row


def _take_back(
    connection: Connection, account_id: int, freed: Sequence[Row[*tuple[Any, ...]]], balance: int = 0
) -> None:
    """After reservations were deleted: nothing is reserved for them any more. balance: what is added to it."""
    _change_account(connection, account_id, balance=balance, reserved=-sum(row.cost for row in freed))
    for row in freed:
        _change_quota(connection, account_id, row.model, reserved=-row.free_tokens)


def _change_account(connection: Connection, account_id: int, *, balance: int = 0, reserved: int = 0) -> None:
    if balance or reserved:
        change = {"account": account_id, "add_balance": balance, "add_reserved": reserved}
        connection.execute(_CHANGE_ACCOUNT, change)


def _change_quota(connection: Connection, account_id: int, model: str, *, used: int = 0, reserved: int = 0) -> None:
    if used or reserved:
        change = {"account": account_id, "of_model": model, "add_used": used, "add_reserved": reserved}
        connection.execute(_CHANGE_QUOTA, change)


def _check_concurrency(whose: str, running: int, limit: int | None) -> None:
    if limit is not None and running >= limit:
        raise RateLimited(
            f"Concurrency limit exceeded: this {whose} may run {limit} calls at the same time. "
            "Try again when one of them has ended.",
            1,
            "concurrency",
        )


def _free_left(rate: Rate, created: datetime, used: int | None, reserved: int | None, now: datetime) -> int:
    until = _free_until(rate, created)
    if until is not None and now >= until:
        return 0
    return max(0, rate.free_tokens - (used or 0) - (reserved or 0))


def _free_until(rate: Rate, created: datetime) -> datetime | None:
    return None if rate.free_days is None else created + timedelta(days=rate.free_days)


def _idempotency_key(account_id: int, request_id: str, fingerprint: bytes | str) -> bytes:
    content = fingerprint.encode() if isinstance(fingerprint, str) else fingerprint
    parts = (str(account_id).encode(), request_id.encode(), content)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
