"""Recomputes every sum that the ledger stores, and reports what does not add up. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Column, Connection, Select, func, select

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import accounts, entries, quotas, reservations


def check(database: Database) -> list[str]:
    """One sentence for each mismatch; empty unless another program wrote to the database."""
    with database.read(REPORT_S) as connection:
        return [*_mismatches(connection), *_wrong_balances(connection)]


def _mismatches(connection: Connection) -> Iterator[str]:
    for name, stored_query, summed_query in STORED_SUMS:
        stored, summed = (_totals(connection, query) for query in (stored_query, summed_query))
        for key in sorted(stored.keys() | summed.keys()):
            if stored[key] != summed[key]:
                whose = ", ".join(map(str, key))
                yield f"Account {whose}: {name} is {stored[key]}, but adds up to {summed[key]}."


def _wrong_balances(connection: Connection) -> Iterator[str]:
    for entry in connection.execute(BALANCE_MISMATCHES):
        yield f"Entry {entry.id}: balance_after is {entry.balance_after}, but adds up to {entry.summed}."


def _totals(connection: Connection, query: Select[Any]) -> Counter[tuple[Any, ...]]:
    return Counter({tuple(key): int(value) for *key, value in connection.execute(query)})


def _sums(column: Column[int], *by: Column[Any]) -> Select[Any]:
    return select(*by, func.sum(column)).where(by[-1].is_not(None)).group_by(*by)


STORED_SUMS = (
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
"""(name, stored values, sums that they must equal). The last column is the value; the others are its key."""

_SUM_SO_FAR = func.sum(entries.c.amount).over(partition_by=entries.c.account_id, order_by=entries.c.id).label("summed")
_RUNNING_BALANCE = select(entries.c.id, entries.c.account_id, entries.c.balance_after, _SUM_SO_FAR).subquery()
BALANCE_MISMATCHES = (
    select(_RUNNING_BALANCE)
    .where(_RUNNING_BALANCE.c.balance_after != _RUNNING_BALANCE.c.summed)
    .order_by(_RUNNING_BALANCE.c.id)
)
