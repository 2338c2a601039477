"""What is charged, to the millionth: reservations while calls run, and entries that nobody can change afterwards.

A call reserves what it costs, then settles or releases it. Each is one transaction that holds the lock of the
account's row, so a balance always is the sum of its entries, and what is reserved the sum of its reservations.

A reservation has a lease, which its process renews as long as it lives. What is not renewed is freed by another
process, but only by one that renewed its own leases all the while: after an outage of the database itself, in which
nobody could, all have a lease's time to renew again. A process never frees what its own running calls hold.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Column, Connection, Row, Select, bindparam, delete, exists, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.fields import MAX_AMOUNT, storable
from rerankd.accounts.keys import VALID, Caller
from rerankd.accounts.schema import EPOCH, accounts, entries, keys, quotas, repeats, reservations
from rerankd.errors import InvalidRequest, OutOfCredit, RateLimited, WrongKey
from rerankd.prices import Price

CHARGED_ONCE_IN = timedelta(hours=24)
"""A call that comes again within this time, with the same id and content, is not charged again."""

FREE_REPEATS = 3
"""How often in that time: each is computed again. Then the call is charged as a new one."""

LAST_USED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a running call may cost. is_repeat: it was charged before, and costs nothing."""

    id: str
    caller: Caller
    price: Price
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
        self._running: set[str] = set()  # reservations of calls that are neither settled nor released
        self._renewed = self._steady_since = EPOCH

    def reserve(
        self,
        caller: Caller,
        price: Price,
        tokens: int,
        *,
        request_id: str,
        fingerprint: bytes | str,
        key_concurrency: int | None = None,
        account_concurrency: int | None = None,
        dialect: str | None = None,
    ) -> Reservation:
        """Sets aside what a call costs: free tokens as long as there are any, then credit.

        A call that was charged in the last 24 hours under the same request_id and fingerprint costs nothing, three
        times.

        Args:
            price: as it is when the call begins; its `model` names the quota.
            fingerprint: of everything that the call asks.
            key_concurrency, account_concurrency: how many calls of the key, of the account may run; None: any number.

        Raises:
            WrongKey: the key is no longer valid.
            RateLimited: as many run.
            OutOfCredit: there is not enough left. Nothing is reserved.
        """
        now, request_id = self._now(), storable(request_id)
        asked = _Asked(caller, price, tokens, _idempotency_key(caller.account_id, request_id, fingerprint))
        with self._running_call() as call_id, self._database.transaction() as connection:
            account = self._lock(connection, caller.account_id, now)
            state = _state(connection, asked, now)
            if not state.key_is_valid:
                raise WrongKey
            _check_concurrency("API key", state.key_running, key_concurrency)
            _check_concurrency("account", state.account_running, account_concurrency)
            is_repeat = state.last_charged is not None and now - state.last_charged < CHARGED_ONCE_IN
            is_repeat = is_repeat and state.repeats < FREE_REPEATS
            share = _Price(0, 0, 0) if is_repeat else _price(asked, account, state, now)
            reservation = Reservation(
                id=call_id,
                caller=caller,
                price=price,
                dialect=dialect,
                request_id=request_id,
                tokens=tokens,
                free_tokens=share.free_tokens,
                billed_tokens=share.billed_tokens,
                cost=share.cost,
                is_repeat=is_repeat,
                idempotency_key=asked.idempotency_key,
                occurrence=state.occurrences,
            )
            if is_repeat:
                connection.execute(_REPEAT, {"idempotency_key": asked.idempotency_key, "time": now})
            self._set_aside(connection, reservation, now, has_quota=state.used is not None)
        return reservation

    def settle(self, reservation: Reservation) -> Charge:
        """Charges a call that succeeded. Settling twice charges once.

        Charges nothing if the same call was charged since, three times. Where the reservation was freed meanwhile, it
        is made anew, of what is left now.

        Raises:
            OutOfCredit: nothing was reserved any more, and there is not enough left. Nothing is charged.
        """
        now, caller = self._now(), reservation.caller
        with self._database.transaction() as connection:
            account = connection.execute(_LOCK, self._which(caller.account_id, now)).one()
            freed = connection.execute(_FREE, {"of_id": reservation.id}).all()
            reservation = reservation if freed else _reserve_anew(connection, reservation, account, now)
            charge = _charge(connection, reservation, account, now)
            _take_back(connection, caller.account_id, freed, balance=-charge.cost)
            _change_quota(connection, caller.account_id, reservation.price.model, used=charge.free_tokens)
            if caller.key_last_used is None or now - caller.key_last_used >= LAST_USED_STEP:
                connection.execute(_USE_KEY, {"key": caller.key_id, "now": now})
        self._running.discard(reservation.id)
        return charge

    def release(self, reservation: Reservation) -> None:
        """Charges nothing. Releasing what was released or settled changes nothing.

        Raises:
            Unavailable: not now; `sweep` will.
        """
        self._running.discard(reservation.id)
        self._free(reservation.caller.account_id, reservation.id)

    def renew(self) -> None:
        """Gives all reservations that this ledger made a new lease. To be called well within one."""
        now = self._now()
        with self._database.transaction() as connection:
            connection.execute(_RENEW, {"of_holder": self._holder, "until": now + self._lease})
        if not self._renewed <= now <= self._renewed + self._lease / 2:
            self._steady_since = now
        self._renewed = now

    def sweep(self) -> None:
        """Frees the reservations that expired, whosever they were, and those of this ledger whose calls are over."""
        now = self._now()
        with self._database.read() as connection:
            held = connection.execute(_HELD, {"of_holder": self._holder}).all()
            expired = connection.scalars(_EXPIRED_ACCOUNTS, self._which(0, now)).all()
            has_old_repeats = connection.scalar(_HAS_OLD_REPEATS, {"until": now - CHARGED_ONCE_IN})
        for row in held:
            if row.id not in self._running:
                self._free(row.account_id, row.id)
        for account_id in expired:
            with self._database.transaction() as connection:
                self._lock(connection, account_id, now)
        if has_old_repeats:
            with self._database.transaction() as connection:
                connection.execute(_FORGET_REPEATS, {"until": now - CHARGED_ONCE_IN})

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
            account = connection.execute(_LOCK, self._which(account_id, now)).first()
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

    def quota(self, account_id: int, price: Price) -> Quota:
        """The free tokens of an account under a price.

        Raises:
            InvalidRequest: no such account.
        """
        of_model = (quotas.c.account_id == accounts.c.id) & (quotas.c.model == price.model)
        query = select(accounts.c.created, quotas.c.used, quotas.c.reserved).join_from(
            accounts, quotas, of_model, isouter=True
        )
        with self._database.read() as connection:
            row = connection.execute(query.where(accounts.c.id == account_id)).first()
        if row is None:
            raise InvalidRequest(f"There is no account {account_id}.")
        left = _free_left(price, row.created, row.used, row.reserved, self._now())
        return Quota(price.free_tokens, row.used or 0, left, _free_until(price, row.created))

    def check(self) -> list[str]:
        """What does not add up, a sentence each; empty unless something else than this program wrote."""
        wrong = []
        with self._database.read(REPORT_S) as connection:
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

    @contextmanager
    def _running_call(self) -> Iterator[str]:
        """The id of a call, which runs unless it is refused. Known before the database keeps it: see `sweep`."""
        call_id = uuid4().hex
        self._running.add(call_id)
        try:
            yield call_id
        except BaseException:
            self._running.discard(call_id)
            raise

    def _free(self, account_id: int, reservation_id: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(_LOCK, self._which(account_id, self._now()))
            _take_back(connection, account_id, connection.execute(_FREE, {"of_id": reservation_id}).all())

    def _lock(self, connection: Connection, account_id: int, now: datetime) -> Row[Any]:
        """Locks an account until the transaction ends, and frees what expired: its balance, and what is reserved."""
        which = self._which(account_id, now)
        row = connection.execute(_LOCK, which).one()
        if row.has_expired:
            _take_back(connection, account_id, connection.execute(_EXPIRE, which).all())
            row = connection.execute(_LOCK, which).one()
        return row

    def _which(self, account_id: int, now: datetime) -> dict[str, Any]:
        """An account, and which of its reservations have expired."""
        return {"account": account_id, "me": self._holder, "expired": now if self._is_steady(now) else EPOCH}

    def _is_steady(self, now: datetime) -> bool:
        """Whether this ledger renewed its leases all through the last lease, so that who did not is dead."""
        is_recent = self._renewed <= now <= self._renewed + self._lease / 2
        return is_recent and now - self._steady_since >= self._lease

    def _set_aside(self, connection: Connection, reservation: Reservation, now: datetime, *, has_quota: bool) -> None:
        account_id, model = reservation.caller.account_id, reservation.price.model
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

_HAS_EXPIRED = (reservations.c.holder != bindparam("me"), reservations.c.expires <= bindparam("expired"))

_LOCK = (
    select(
        accounts.c.balance,
        accounts.c.reserved,
        exists().where(reservations.c.account_id == accounts.c.id, *_HAS_EXPIRED).label("has_expired"),
    )
    .where(accounts.c.id == bindparam("account"))
    .with_for_update(key_share=True, of=accounts)
)

_RUNNING = (
    select(
        func.count().label("account_running"),
        func.count().filter(reservations.c.key_id == bindparam("key")).label("key_running"),
    )
    .where(reservations.c.account_id == bindparam("account"))
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
_OF_CALL = repeats.c.idempotency_key == bindparam("idempotency_key")
_REPEATED = select(func.count().label("repeats")).where(_OF_CALL, repeats.c.time > bindparam("a_day_ago")).subquery()
_KEY_IS_VALID = exists().where(keys.c.id == bindparam("key"), accounts.c.id == keys.c.account_id, *VALID)
# Always one row: the key, what runs, the quota (nulls where there is none), when the same call was charged, and how
# often it was free since.
_STATE = select(_KEY_IS_VALID.label("key_is_valid"), _RUNNING, _QUOTA, _CHARGED, _REPEATED).select_from(
    _RUNNING.join(_QUOTA, true()).join(_CHARGED, true()).join(_REPEATED, true())
)

_REPEAT = insert(repeats)
_FORGET_REPEATS = delete(repeats).where(repeats.c.time <= bindparam("until"))
_HAS_OLD_REPEATS = select(exists().where(repeats.c.time <= bindparam("until")))

_RESERVE = insert(reservations)
_FREED = (reservations.c.model, reservations.c.cost, reservations.c.free_tokens)
_FREE = delete(reservations).where(reservations.c.id == bindparam("of_id")).returning(*_FREED)
_RENEW = update(reservations).where(reservations.c.holder == bindparam("of_holder")).values(expires=bindparam("until"))
_HELD = select(reservations.c.id, reservations.c.account_id).where(reservations.c.holder == bindparam("of_holder"))
_EXPIRED_ACCOUNTS = select(reservations.c.account_id).distinct().where(*_HAS_EXPIRED)
# Skips what is being renewed: `renew` holds no account's lock, and waiting for it could be mutual.
_EXPIRED = (
    select(reservations.c.id)
    .where(reservations.c.account_id == bindparam("account"), *_HAS_EXPIRED)
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


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call, as far as its price depends on it."""

    caller: Caller
    price: Price
    tokens: int
    idempotency_key: bytes


@dataclass(frozen=True, slots=True)
class _Price:
    cost: int
    free_tokens: int
    billed_tokens: int


def _state(connection: Connection, asked: _Asked, now: datetime) -> Row[Any]:
    which = {
        "account": asked.caller.account_id,
        "key": asked.caller.key_id,
        "model": asked.price.model,
        "idempotency_key": asked.idempotency_key,
        "now": now,
        "a_day_ago": now - CHARGED_ONCE_IN,
    }
    return connection.execute(_STATE, which).one()


def _price(asked: _Asked, account: Row[Any], state: Row[Any], now: datetime) -> _Price:
    """Free tokens as long as there are any, then credit. Raises OutOfCredit."""
    price = asked.price
    free = min(asked.tokens, _free_left(price, asked.caller.account_created, state.used, state.reserved, now))
    cost = price.cost(asked.tokens - free)
    available = account.balance - account.reserved
    if cost and available < cost:
        raise OutOfCredit(available, cost, price.currency)
    return _Price(cost, free, asked.tokens - free)


def _reserve_anew(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> Reservation:
    """A call whose reservation another process freed: what it costs now, unless it was settled. Raises OutOfCredit."""
    asked = _Asked(reservation.caller, reservation.price, reservation.tokens, reservation.idempotency_key)
    state = _state(connection, asked, now)
    if reservation.is_repeat or state.occurrences > reservation.occurrence:
        return replace(reservation, is_repeat=True)
    price = _price(asked, account, state, now)
    return replace(reservation, cost=price.cost, free_tokens=price.free_tokens, billed_tokens=price.billed_tokens)


def _charge(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> Charge:
    """Writes the entry of a call that has its reservation."""
    nothing = Charge(0, 0, 0, reservation.tokens)
    if reservation.is_repeat:
        return nothing
    if not _enter(connection, reservation, account, now):  # a twin was quicker
        asked = _Asked(reservation.caller, reservation.price, reservation.tokens, reservation.idempotency_key)
        state = _state(connection, asked, now)
        if state.repeats < FREE_REPEATS:
            connection.execute(_REPEAT, {"idempotency_key": reservation.idempotency_key, "time": now})
            return nothing
        _enter(connection, replace(reservation, occurrence=state.occurrences), account, now)
    return Charge(reservation.cost, reservation.free_tokens, reservation.billed_tokens, reservation.tokens)


def _enter(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> bool:
    """Whether there was no such entry."""
    entry = {
        "account_id": reservation.caller.account_id,
        "kind": "charge",
        "amount": -reservation.cost,
        "balance_after": account.balance - reservation.cost,
        "time": now,
        "key_id": reservation.caller.key_id,
        "model": reservation.price.model,
        "dialect": reservation.dialect,
        "request_id": reservation.request_id,
        "tokens": reservation.tokens,
        "free_tokens": reservation.free_tokens,
        "billed_tokens": reservation.billed_tokens,
        "price": format(reservation.price.input_price, "f"),
        "currency": reservation.price.currency,
        "idempotency_key": reservation.idempotency_key,
        "occurrence": reservation.occurrence,
    }
    return connection.execute(_CHARGE[connection.dialect.name], entry).first() is not None


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


def _free_left(price: Price, created: datetime, used: int | None, reserved: int | None, now: datetime) -> int:
    until = _free_until(price, created)
    if until is not None and now >= until:
        return 0
    return max(0, price.free_tokens - (used or 0) - (reserved or 0))


def _free_until(price: Price, created: datetime) -> datetime | None:
    return None if price.free_days is None else created + timedelta(days=price.free_days)


def _idempotency_key(account_id: int, request_id: str, fingerprint: bytes | str) -> bytes:
    content = fingerprint.encode() if isinstance(fingerprint, str) else fingerprint
    parts = (str(account_id).encode(), request_id.encode(), content)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
