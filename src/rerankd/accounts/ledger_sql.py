"""The ledger's SQL statements, built once. Executes none of them.

A row of `accounts` is locked before anything of that account is written. (SQLite locks the whole database, and
SQLAlchemy omits FOR UPDATE there.)
"""

from __future__ import annotations

from sqlalchemy import BigInteger, bindparam, cast, delete, exists, func, insert, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from rerankd.accounts.keys import VALID
from rerankd.accounts.schema import accounts, entries, keys, months, quotas, repeats, reservations

_IS_EXPIRED = (
    reservations.c.process_id != bindparam("own_process"),
    reservations.c.expires <= bindparam("expired_until"),
)

LOCK_ACCOUNT = (
    select(
        accounts.c.balance,
        accounts.c.reserved,
        accounts.c.team_id,
        exists().where(reservations.c.account_id == accounts.c.id, *_IS_EXPIRED).label("has_expired"),
    )
    .where(accounts.c.id == bindparam("account"))
    .with_for_update(key_share=True, of=accounts)
)

_OF_KEY = reservations.c.key_id == bindparam("key")
_RUNNING_CALLS = (
    select(
        func.count().label("account_running"),
        func.count().filter(_OF_KEY).label("key_running"),
        # PostgreSQL sums into a type that Python reads as Decimal.
        cast(func.coalesce(func.sum(reservations.c.cost).filter(_OF_KEY), 0), BigInteger).label("key_reserved"),
    )
    .where(reservations.c.account_id == bindparam("account"))
    .subquery()
)
_FREE_TOKENS = (
    select(func.max(quotas.c.used).label("free_used"), func.max(quotas.c.reserved).label("free_reserved"))
    .where(quotas.c.account_id == bindparam("account"), quotas.c.model == bindparam("model"))
    .subquery()
)
_EARLIER_CHARGES = (
    select(func.max(entries.c.time).label("last_charged"), func.count().label("times_charged"))
    .where(entries.c.idempotency_key == bindparam("idempotency_key"))
    .subquery()
)
_FREE_REPEATS = (
    select(func.count().label("repeats"))
    .where(repeats.c.idempotency_key == bindparam("idempotency_key"), repeats.c.time > bindparam("a_day_ago"))
    .subquery()
)
_KEY_IS_VALID = exists().where(keys.c.id == bindparam("key"), accounts.c.id == keys.c.account_id, *VALID)
_BUDGET = select(keys.c.budget).where(keys.c.id == bindparam("key")).scalar_subquery()
_IN_MONTH = (months.c.key_id == bindparam("key"), months.c.month == bindparam("month"))
_SPENT = func.coalesce(select(months.c.spent).where(*_IN_MONTH).scalar_subquery(), 0)

CALL_STATE = select(
    _KEY_IS_VALID.label("key_is_valid"),
    _BUDGET.label("budget"),
    _SPENT.label("spent"),
    _RUNNING_CALLS,
    _FREE_TOKENS,
    _EARLIER_CHARGES,
    _FREE_REPEATS,
).select_from(_RUNNING_CALLS.join(_FREE_TOKENS, true()).join(_EARLIER_CHARGES, true()).join(_FREE_REPEATS, true()))
"""Always one row, with the fields of `AccountState` that depend on the call; nulls where there is no quota."""

INSERT_REPEAT = insert(repeats)
DELETE_OLD_REPEATS = delete(repeats).where(repeats.c.time <= bindparam("until"))
HAS_OLD_REPEATS = select(exists().where(repeats.c.time <= bindparam("until")))

_FREED = (reservations.c.model, reservations.c.cost, reservations.c.free_tokens)
INSERT_RESERVATION = insert(reservations)
DELETE_RESERVATION = delete(reservations).where(reservations.c.id == bindparam("reservation")).returning(*_FREED)
RENEW_LEASES = (
    update(reservations).where(reservations.c.process_id == bindparam("process")).values(expires=bindparam("until"))
)
RESERVATIONS_OF_PROCESS = select(reservations.c.id, reservations.c.account_id).where(
    reservations.c.process_id == bindparam("process")
)
ACCOUNTS_WITH_EXPIRED = select(reservations.c.account_id).distinct().where(*_IS_EXPIRED)
# Skips rows that are being renewed: RENEW_LEASES holds no account's lock, so the two could wait for each other.
_EXPIRED_IDS = (
    select(reservations.c.id)
    .where(reservations.c.account_id == bindparam("account"), *_IS_EXPIRED)
    .with_for_update(skip_locked=True)
)
DELETE_EXPIRED = delete(reservations).where(reservations.c.id.in_(_EXPIRED_IDS)).returning(*_FREED)

CHANGE_ACCOUNT = (
    update(accounts)
    .where(accounts.c.id == bindparam("account"))
    .values(
        balance=accounts.c.balance + bindparam("add_balance"),
        reserved=accounts.c.reserved + bindparam("add_reserved"),
    )
)
INSERT_QUOTA = insert(quotas)
CHANGE_QUOTA = (
    update(quotas)
    .where(quotas.c.account_id == bindparam("account"), quotas.c.model == bindparam("of_model"))
    .values(used=quotas.c.used + bindparam("add_used"), reserved=quotas.c.reserved + bindparam("add_reserved"))
)
SET_KEY_LAST_USED = update(keys).where(keys.c.id == bindparam("key")).values(last_used=bindparam("now"))
INSERT_CREDIT = insert(entries).returning(entries.c.id)
INSERT_CHARGE = {
    module.dialect.name: module.insert(entries).on_conflict_do_nothing().returning(entries.c.id)
    for module in (sqlite, postgresql)
}
"""By the database's dialect. Returns no row where the call has an entry already."""
