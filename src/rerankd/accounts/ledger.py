"""Charges calls, exact to the millionth: reservations while calls run, entries that never change afterwards.

A call reserves its cost, then settles or releases it. Each is one transaction that holds the lock of the account's
row, so a balance is always the sum of its entries, and the reserved amount the sum of its reservations.

A reservation has a lease, which its process renews while it lives. Another process frees a reservation whose lease has
expired, but only if it renewed its own leases all the while: after an outage of the database, in which nobody could
renew, every process has a full lease's time to renew again. A process never frees the reservations of its own running
calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, select

from rerankd.accounts import audit
from rerankd.accounts import ledger_sql as sql
from rerankd.accounts.accounts import PAYS_NOTHING
from rerankd.accounts.admin_log import write
from rerankd.accounts.database import Database
from rerankd.accounts.decision import (
    CHARGED_ONCE_IN,
    UNLIMITED,
    CallCost,
    Charge,
    Concurrency,
    decide,
    free_tokens_expiry,
    free_tokens_left,
)
from rerankd.accounts.keys import Caller
from rerankd.accounts.reservation import (
    Reservation,
    change_account,
    change_quota,
    charge_call,
    idempotency_key,
    of_fewer,
    of_part,
    read_state,
    release_amounts,
    reserve_again,
)
from rerankd.accounts.schema import EPOCH, accounts, entries, quotas
from rerankd.accounts.validation import MAX_AMOUNT, storable
from rerankd.errors import InvalidRequest
from rerankd.money import decimal
from rerankd.prices import Price

LAST_USED_STEP = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Quota:
    """Free tokens of one account for one model. left: neither used nor reserved; 0 once they have expired."""

    granted: int
    used: int
    left: int
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Credit:
    """An amount added to an account (or removed, if negative), in millionths. by: the account that did it."""

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
        lease_s: how long a reservation lives without renewal.
        clock: seconds since 1970.
    """

    def __init__(self, database: Database, lease_s: float = 60, clock: Callable[[], float] = time.time) -> None:
        self.lease_s = lease_s
        self._database = database
        self._clock = clock
        self._process_id = uuid4().hex
        self._running: set[str] = set()  # reservations of calls that are neither settled nor released
        self._renewed = self._steady_since = EPOCH

    def reserve(
        self, caller: Caller, price: Price, call: CallCost, concurrency: Concurrency = UNLIMITED
    ) -> Reservation:
        """Sets aside the cost of a call: free tokens first, then credit.

        A call is free, up to three times, if it was charged in the last 24 hours under the same request_id and
        fingerprint.

        Args:
            price: the price in force when the call begins; its `model` names the quota.

        Raises:
            WrongKey: the key is no longer valid.
            RateLimited: the key or the account has reached its concurrency limit.
            OutOfCredit: the account cannot pay. Nothing is reserved.
            OverBudget: the budget of the key cannot. Nothing is reserved.
        """
        now = self._now()
        call = replace(call, request_id=storable(call.request_id))
        key = idempotency_key(caller.account_id, call)
        with self._running_call() as reservation_id, self._database.transaction() as connection:
            account = self._lock(connection, caller.account_id, now)
            state = read_state(connection, caller, price, key, account, now)
            decision = decide(state, price, call.tokens, now, concurrency)
            reservation = Reservation(
                reservation_id, caller, price, call, decision.charge, decision.is_repeat, key, state.times_charged
            )
            if reservation.is_repeat:
                connection.execute(sql.INSERT_REPEAT, {"idempotency_key": key, "time": now})
            self._set_aside(connection, reservation, now, has_quota=state.free_used is not None)
        return reservation

    def settle(self, reservation: Reservation, tokens: int | None = None, is_whole: bool = True) -> Charge:
        """Charges a call that succeeded. Settling twice charges once.

        Args:
            tokens: that were computed, where they are fewer than those that were reserved.
            is_whole: a deadline left nothing. A call that was scored in part makes no other one free: that one may
                score all of it.

        Charges nothing if the same call was charged meanwhile, up to three times. If the reservation was freed
        meanwhile, the account pays the cost from its present balance.

        Raises:
            OutOfCredit: nothing was reserved any more, and the account, or the budget of the key, cannot pay. Nothing
                is charged.
        """
        now, caller = self._now(), reservation.caller
        if tokens is not None and tokens < reservation.call.tokens:
            reservation = of_fewer(reservation, tokens)
        if not is_whole:
            reservation = of_part(reservation)
        with self._database.transaction() as connection:
            account = connection.execute(sql.LOCK_ACCOUNT, self._lock_parameters(caller.account_id, now)).one()
            freed = connection.execute(sql.DELETE_RESERVATION, {"reservation": reservation.id}).all()
            reservation = reservation if freed else reserve_again(connection, reservation, account, now)
            charge = charge_call(connection, reservation, account, now)
            release_amounts(connection, caller.account_id, freed, balance=-charge.cost)
            change_quota(connection, caller.account_id, reservation.price.model, used=charge.free_tokens)
            if caller.key_last_used is None or now - caller.key_last_used >= LAST_USED_STEP:
                connection.execute(sql.SET_KEY_LAST_USED, {"key": caller.key_id, "now": now})
        self._running.discard(reservation.id)
        return charge

    def release(self, reservation: Reservation) -> None:
        """Charges nothing. Releasing again, or after `settle`, changes nothing.

        Raises:
            Unavailable: the database does not answer; `sweep` will release it later.
        """
        self._running.discard(reservation.id)
        self._free(reservation.caller.account_id, reservation.id)

    def renew(self) -> None:
        """Renews the leases of this ledger's reservations. Call it several times within a lease."""
        now = self._now()
        with self._database.transaction() as connection:
            connection.execute(sql.RENEW_LEASES, {"process": self._process_id, "until": now + self._lease})
        if not self._renewed <= now <= self._renewed + self._lease / 2:
            self._steady_since = now
        self._renewed = now

    def sweep(self) -> None:
        """Frees all expired reservations, and those of this ledger whose calls have ended."""
        now = self._now()
        with self._database.read() as connection:
            held = connection.execute(sql.RESERVATIONS_OF_PROCESS, {"process": self._process_id}).all()
            expired = connection.scalars(sql.ACCOUNTS_WITH_EXPIRED, self._lock_parameters(0, now)).all()
            has_old_repeats = connection.scalar(sql.HAS_OLD_REPEATS, {"until": now - CHARGED_ONCE_IN})
        for row in held:
            if row.id not in self._running:
                self._free(row.account_id, row.id)
        for account_id in expired:
            with self._database.transaction() as connection:
                self._lock(connection, account_id, now)
        if has_old_repeats:
            with self._database.transaction() as connection:
                connection.execute(sql.DELETE_OLD_REPEATS, {"until": now - CHARGED_ONCE_IN})

    def add_credits(self, account_id: int, micro: int, note: str = "", by: int | None = None) -> Credit:
        """Adds to an account's balance, in millionths; a negative amount corrects it.

        Args:
            by: the account that adds it; None: the operator of the server.

        Raises:
            InvalidRequest: no such account, a member of one, or the amount is 0 or 10^9 or more.
        """
        if not 0 < abs(micro) < MAX_AMOUNT:
            raise InvalidRequest("The amount must be less than 1000000000, and not 0.", [("amount", "out of range")])
        now = self._now()
        with self._database.transaction() as connection:
            account = connection.execute(sql.LOCK_ACCOUNT, self._lock_parameters(account_id, now)).first()
            if account is None:
                raise InvalidRequest(f"There is no account {account_id}.")
            if account.team_id is not None:
                raise InvalidRequest(PAYS_NOTHING)
            entry = {
                "account_id": account_id,
                "kind": "credit",
                "amount": micro,
                "balance_after": account.balance + micro,
                "time": now,
                "note": storable(note) or None,
                "made_by": by,
            }
            entry_id = connection.execute(sql.INSERT_CREDIT, entry).scalar_one()
            change_account(connection, account_id, balance=micro)
            action = "credit added" if micro > 0 else "credit removed"
            write(connection, by or "operator", action, account_id, f"{decimal(micro)} {entry['note'] or ''}".strip())
        return Credit(entry_id, account_id, micro, account.balance + micro, now, entry["note"], by)

    def credit(self, account_id: int, entry_id: int) -> Credit | None:
        """A credit of an account; None if it has no such one."""
        query = select(entries).where(entries.c.id == entry_id, entries.c.account_id == account_id)
        with self._database.read() as connection:
            row = connection.execute(query.where(entries.c.kind == "credit")).first()
        if row is None:
            return None
        return Credit(row.id, row.account_id, row.amount, row.balance_after, row.time, row.note, row.made_by)

    def quota(self, account_id: int, price: Price) -> Quota:
        """The free tokens of an account for the model of a price.

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
        left = free_tokens_left(price, row.created, row.used, row.reserved, self._now())
        return Quota(price.free_tokens, row.used or 0, left, free_tokens_expiry(price, row.created))

    def check(self) -> list[str]:
        """One sentence for each sum that does not add up; empty unless another program wrote to the database."""
        return audit.check(self._database)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)

    @contextmanager
    def _running_call(self) -> Iterator[str]:
        """The id of a new reservation, registered before the database stores it: `sweep` must not free it."""
        reservation_id = uuid4().hex
        self._running.add(reservation_id)
        try:
            yield reservation_id
        except BaseException:
            self._running.discard(reservation_id)
            raise

    def _free(self, account_id: int, reservation_id: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(sql.LOCK_ACCOUNT, self._lock_parameters(account_id, self._now()))
            freed = connection.execute(sql.DELETE_RESERVATION, {"reservation": reservation_id}).all()
            release_amounts(connection, account_id, freed)

    def _lock(self, connection: Connection, account_id: int, now: datetime) -> Row[Any]:
        """Locks an account until the transaction ends, frees its expired reservations, and returns its balances."""
        parameters = self._lock_parameters(account_id, now)
        row = connection.execute(sql.LOCK_ACCOUNT, parameters).one()
        if row.has_expired:
            release_amounts(connection, account_id, connection.execute(sql.DELETE_EXPIRED, parameters).all())
            row = connection.execute(sql.LOCK_ACCOUNT, parameters).one()
        return row

    def _lock_parameters(self, account_id: int, now: datetime) -> dict[str, Any]:
        expired_until = now if self._is_steady(now) else EPOCH
        return {"account": account_id, "own_process": self._process_id, "expired_until": expired_until}

    def _is_steady(self, now: datetime) -> bool:
        """Whether this ledger renewed its leases throughout the last lease, so that a process that did not is dead."""
        is_recent = self._renewed <= now <= self._renewed + self._lease / 2
        return is_recent and now - self._steady_since >= self._lease

    def _set_aside(self, connection: Connection, reservation: Reservation, now: datetime, *, has_quota: bool) -> None:
        account_id, model, charge = reservation.caller.account_id, reservation.price.model, reservation.charge
        row = {
            "id": reservation.id,
            "account_id": account_id,
            "key_id": reservation.caller.key_id,
            "process_id": self._process_id,
            "model": model,
            "cost": charge.cost,
            "free_tokens": charge.free_tokens,
            "expires": now + self._lease,
        }
        connection.execute(sql.INSERT_RESERVATION, row)
        change_account(connection, account_id, reserved=charge.cost)
        if has_quota or not charge.free_tokens:
            change_quota(connection, account_id, model, reserved=charge.free_tokens)
        else:
            quota = {"account_id": account_id, "model": model, "used": 0, "reserved": charge.free_tokens}
            connection.execute(sql.INSERT_QUOTA, quota)

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)
