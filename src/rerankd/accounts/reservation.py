"""One reservation: what it sets aside, and what it writes inside a transaction of the ledger.

Each function runs while the account's row is locked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from rerankd.accounts import ledger_sql as sql
from rerankd.accounts.budget import month_of
from rerankd.accounts.decision import (
    CHARGED_ONCE_IN,
    FREE_REPEATS,
    AccountState,
    CallCost,
    Charge,
    charge_for,
    free_charge,
    part_of,
)
from rerankd.accounts.keys import Caller
from rerankd.prices import Price


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credit and free tokens that are set aside for a running call.

    Attributes:
        charge: the charge if the call succeeds.
        is_repeat: the same call was charged before, so this one is free.
        occurrence: how often the same call was charged before.
    """

    id: str
    caller: Caller
    price: Price
    call: CallCost
    charge: Charge
    is_repeat: bool
    idempotency_key: bytes
    occurrence: int


def read_state(
    connection: Connection, caller: Caller, price: Price, idempotency_key: bytes, account: Row[Any], now: datetime
) -> AccountState:
    """The state of a locked account, for one call."""
    parameters = {
        "account": caller.account_id,
        "key": caller.key_id,
        "model": price.model,
        "idempotency_key": idempotency_key,
        "now": now,
        "a_day_ago": now - CHARGED_ONCE_IN,
        "month": month_of(now),
    }
    row = connection.execute(sql.CALL_STATE, parameters).one()
    return AccountState(account.balance, account.reserved, caller.account_created, **row._mapping)


def state_of(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> AccountState:
    key = reservation.idempotency_key
    return read_state(connection, reservation.caller, reservation.price, key, account, now)


def reserve_again(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> Reservation:
    """A reservation that another process freed, at its cost now; free if it was settled. Raises OutOfCredit."""
    state = state_of(connection, reservation, account, now)
    if reservation.is_repeat or state.times_charged > reservation.occurrence:
        return replace(reservation, is_repeat=True)
    return replace(reservation, charge=charge_for(state, reservation.price, reservation.call.tokens, now))


def of_fewer(reservation: Reservation, tokens: int) -> Reservation:
    """The reservation at the charge of fewer tokens: the free ones are spent first."""
    charge = part_of(reservation.charge, reservation.price, tokens)
    return replace(reservation, charge=charge, call=replace(reservation.call, tokens=tokens))


def of_part(reservation: Reservation) -> Reservation:
    """The reservation under a key that no other call has."""
    key = hashlib.sha256(reservation.idempotency_key + reservation.id.encode()).digest()
    return replace(reservation, idempotency_key=key)


def charge_call(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> Charge:
    """Writes the entry of a call."""
    if reservation.is_repeat:
        return free_charge(reservation.call.tokens)
    if not _insert_entry(connection, reservation, account, now):  # the same call was settled first
        state = state_of(connection, reservation, account, now)
        if state.repeats < FREE_REPEATS:
            connection.execute(sql.INSERT_REPEAT, {"idempotency_key": reservation.idempotency_key, "time": now})
            return free_charge(reservation.call.tokens)
        _insert_entry(connection, replace(reservation, occurrence=state.times_charged), account, now)
    return reservation.charge


def _insert_entry(connection: Connection, reservation: Reservation, account: Row[Any], now: datetime) -> bool:
    """Returns False where the call has an entry already."""
    call, charge, price = reservation.call, reservation.charge, reservation.price
    entry = {
        "account_id": reservation.caller.account_id,
        "kind": "charge",
        "amount": -charge.cost,
        "balance_after": account.balance - charge.cost,
        "time": now,
        "key_id": reservation.caller.key_id,
        "model": price.model,
        "dialect": call.dialect,
        "request_id": call.request_id,
        "tokens": call.tokens,
        "free_tokens": charge.free_tokens,
        "billed_tokens": charge.billed_tokens,
        "price": format(price.input_price, "f"),
        "currency": price.currency,
        "idempotency_key": reservation.idempotency_key,
        "occurrence": reservation.occurrence,
    }
    return connection.execute(sql.INSERT_CHARGE[connection.dialect.name], entry).first() is not None


def release_amounts(
    connection: Connection, account_id: int, freed: Sequence[Row[*tuple[Any, ...]]], balance: int = 0
) -> None:
    """Subtracts deleted reservations from the account's reserved amount. balance: added to the account's balance."""
    change_account(connection, account_id, balance=balance, reserved=-sum(row.cost for row in freed))
    for row in freed:
        change_quota(connection, account_id, row.model, reserved=-row.free_tokens)


def change_account(connection: Connection, account_id: int, *, balance: int = 0, reserved: int = 0) -> None:
    """Adds to what an account has, and to what is reserved of it, in millionths."""
    if balance or reserved:
        change = {"account": account_id, "add_balance": balance, "add_reserved": reserved}
        connection.execute(sql.CHANGE_ACCOUNT, change)


def change_quota(connection: Connection, account_id: int, model: str, *, used: int = 0, reserved: int = 0) -> None:
    """Adds to the free tokens of this month that are used, and to those that are reserved."""
    if used or reserved:
        change = {"account": account_id, "of_model": model, "add_used": used, "add_reserved": reserved}
        connection.execute(sql.CHANGE_QUOTA, change)


def idempotency_key(account_id: int, call: CallCost) -> bytes:
    """32 bytes, the same for each repeat of a call."""
    parts = (str(account_id).encode(), call.request_id.encode(), call.fingerprint)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).digest()
