"""Recomputes every sum that the ledger stores, and reports what does not add up. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    func,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
    union_all,
)

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.month_sql import month_of_day
from rerankd.accounts.schema import (
    CHARGE_SUMS,
    Day,
    accounts,
    daily_charge_totals,
    daily_charges,
    entries,
    keys,
    months,
    quotas,
    reservations,
)


@dataclass(frozen=True, slots=True)
class StoredSums:
    """Stored values, and the sums that they must equal.

    Attributes:
        whose: what the columns of the key identify, as a format.
        values: what each column with a value is; all other columns are the key.
    """

    whose: str
    values: Mapping[str, str]
    stored: Select[Any]
    summed: Select[Any]

    def mismatches(self) -> Select[Any]:
        """A row for each key with a difference: the key, then `stored_…` and `summed_…` of each value.

        The database compares: of millions of days, none is sent.
        """
        sides = {"stored": self.stored.subquery(), "summed": self.summed.subquery()}
        key = [name for name in sides["stored"].c.keys() if name not in self.values]
        rows = []
        for side, table in sides.items():
            values = [
                (table.c[name] if of == side else literal(0)).label(f"{of}_{name}")
                for of in sides
                for name in self.values
            ]
            rows.append(select(*(table.c[name] for name in key), *values))
        both = union_all(*rows).subquery()
        sums = {name: func.sum(column) for name, column in both.c.items() if name not in key}
        by = [both.c[name] for name in key]
        differs = [sums[f"stored_{name}"] != sums[f"summed_{name}"] for name in self.values]
        columns = (*by, *(total.label(name) for name, total in sums.items()))
        return select(*columns).group_by(*by).having(or_(*differs)).order_by(*by)


def check(database: Database) -> list[str]:
    """One sentence for each mismatch; empty unless another program wrote to the database."""
    with database.read(REPORT_S) as connection:
        return [*_mismatches(connection), *_wrong_balances(connection)]


def _mismatches(connection: Connection) -> Iterator[str]:
    for sums, query in _QUERIES:
        for row in connection.execute(query).mappings():
            for column, name in sums.values.items():
                stored, summed = int(row[f"stored_{column}"]), int(row[f"summed_{column}"])
                if stored != summed:
                    yield f"{sums.whose.format_map(row)}: {name} is {stored}, but adds up to {summed}."


def _wrong_balances(connection: Connection) -> Iterator[str]:
    for entry in connection.execute(BALANCE_MISMATCHES):
        yield f"Entry {entry.id}: balance_after is {entry.balance_after}, but adds up to {entry.summed}."


_DAY = type_coerce(type_coerce(entries.c.time, BigInteger) // literal_column("86400000000", BigInteger), Day).label(
    "day"
)
_CHARGED = (
    func.count().label("calls"),
    func.sum(entries.c.tokens).label("tokens"),
    func.sum(entries.c.free_tokens).label("free_tokens"),
    func.sum(entries.c.billed_tokens).label("billed_tokens"),
    (-func.sum(entries.c.amount)).label("cost"),
)
_MONTH = month_of_day(daily_charges.c.day).label("month")
_IS_CHARGE = entries.c.kind == "charge"
_OF_A_DAY = {name: f"{name.replace('_', ' ')} of the day" for name in CHARGE_SUMS}

STORED_SUMS = (
    StoredSums(
        "Account {account_id}",
        {"value": "balance"},
        select(accounts.c.id.label("account_id"), accounts.c.balance.label("value")),
        select(entries.c.account_id, func.sum(entries.c.amount).label("value")).group_by(entries.c.account_id),
    ),
    StoredSums(
        "Account {account_id}",
        {"value": "reserved credit"},
        select(accounts.c.id.label("account_id"), accounts.c.reserved.label("value")),
        select(reservations.c.account_id, func.sum(reservations.c.cost).label("value")).group_by(
            reservations.c.account_id
        ),
    ),
    StoredSums(
        "Account {account_id}, {model}",
        {"used": "free tokens used"},
        select(quotas.c.account_id, quotas.c.model, quotas.c.used),
        select(entries.c.account_id, entries.c.model, func.sum(entries.c.free_tokens).label("used"))
        .where(_IS_CHARGE)
        .group_by(entries.c.account_id, entries.c.model),
    ),
    StoredSums(
        "Account {account_id}, {model}",
        {"reserved": "free tokens reserved"},
        select(quotas.c.account_id, quotas.c.model, quotas.c.reserved),
        select(
            reservations.c.account_id, reservations.c.model, func.sum(reservations.c.free_tokens).label("reserved")
        ).group_by(reservations.c.account_id, reservations.c.model),
    ),
    StoredSums(
        "Account {account_id}, key {key_id}, {model} on {day}",
        _OF_A_DAY,
        select(daily_charges),
        select(entries.c.account_id, _DAY, entries.c.key_id, entries.c.model, *_CHARGED)
        .where(_IS_CHARGE)
        .group_by(entries.c.account_id, _DAY, entries.c.key_id, entries.c.model),
    ),
    StoredSums(
        "All accounts, {model} on {day}",
        _OF_A_DAY,
        select(
            daily_charge_totals.c.day, daily_charge_totals.c.model, *(daily_charge_totals.c[n] for n in CHARGE_SUMS)
        ),
        select(_DAY, entries.c.model, *_CHARGED).where(_IS_CHARGE).group_by(_DAY, entries.c.model),
    ),
    StoredSums(
        "Account {account_id}, key {key_id}, month {month}",
        {"spent": "spending"},
        select(keys.c.account_id, months.c.key_id, months.c.month, months.c.spent).join_from(months, keys),
        select(
            daily_charges.c.account_id, daily_charges.c.key_id, _MONTH, func.sum(daily_charges.c.cost).label("spent")
        )
        .where(daily_charges.c.cost != 0)
        .group_by(daily_charges.c.account_id, daily_charges.c.key_id, _MONTH),
    ),
)

_QUERIES = tuple((sums, sums.mismatches()) for sums in STORED_SUMS)

_SUM_SO_FAR = func.sum(entries.c.amount).over(partition_by=entries.c.account_id, order_by=entries.c.id).label("summed")
_RUNNING_BALANCE = select(entries.c.id, entries.c.account_id, entries.c.balance_after, _SUM_SO_FAR).subquery()
BALANCE_MISMATCHES = (
    select(_RUNNING_BALANCE)
    .where(_RUNNING_BALANCE.c.balance_after != _RUNNING_BALANCE.c.summed)
    .order_by(_RUNNING_BALANCE.c.id)
)
