"""Charges summed by day, key, model or account, also as CSV. Reads the sums of each day, never the entries."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, FromClause, RowMapping, Select, Table, func, select

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import CHARGE_SUMS, accounts, daily_charge_totals, daily_charges, keys
from rerankd.errors import InvalidRequest
from rerankd.money import decimal

By = Literal["day", "key", "model", "account"]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A sum of charges. The first six fields are None unless the sum is grouped by them.

    Attributes:
        day: in UTC.
        account: the e-mail address.
        key: the key's name and hint.
        cost: in millionths.
    """

    day: date | None
    account_id: int | None
    account: str | None
    key_id: int | None
    key: str | None
    model: str | None
    calls: int
    tokens: int
    free_tokens: int
    billed_tokens: int
    cost: int


def usage(
    database: Database,
    by: Sequence[By],
    account_id: int | None = None,
    since: date | None = None,
    until: date | None = None,
) -> list[UsageRow]:
    """The charges of one account, or of all, grouped and sorted by `by`.

    Args:
        by: empty for one sum.
        since: the first day included, in UTC.
        until: the first day excluded.

    Raises:
        InvalidRequest: `by` has an unknown column.
    """
    if unknown := sorted(set(by) - set(get_args(By))):
        raise InvalidRequest(f"Usage is summed by {', '.join(get_args(By))}; not by {', '.join(unknown)}.")
    of_all = account_id is None and not {"account", "key"} & set(by)
    table = daily_charge_totals if of_all else daily_charges
    groups = [table.c[_GROUPS.get(name, name)] for name in dict.fromkeys(by)]
    query = _within(select(*groups, *_sums(table)).group_by(*groups).having(func.count() > 0), table, since, until)
    if account_id is not None:
        query = query.where(table.c.account_id == account_id)
    with database.read(REPORT_S) as connection:
        found = connection.execute(_named(query, by))
        return sorted((_row(row) for row in found.mappings()), key=lambda row: [getattr(row, name) for name in by])


def largest_accounts(
    database: Database, since: date | None, until: date | None, limit: int
) -> tuple[list[UsageRow], int]:
    """(the accounts with the most tokens, those first; how many accounts have charges)."""
    sums, owner = _sums(daily_charges), daily_charges.c.account_id
    tokens = func.sum(daily_charges.c.tokens)
    grouped = select(owner, *sums, func.count().over().label("number")).group_by(owner)
    largest = _within(grouped, daily_charges, since, until).order_by(tokens.desc(), owner).limit(limit).subquery()
    query = select(largest, accounts.c.email).join_from(largest, accounts, accounts.c.id == largest.c.account_id)
    query = query.order_by(largest.c.tokens.desc(), largest.c.account_id)
    with database.read(REPORT_S) as connection:
        found = connection.execute(query).mappings().all()
    return [_row(row) for row in found], found[0]["number"] if found else 0


def as_csv(rows: Iterable[UsageRow], by: Sequence[By]) -> str:
    """A header, then a line for each row: the columns of `by`, then the sums. Costs in currency units."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow((*by, *CHARGE_SUMS))
    counts = tuple(name for name in CHARGE_SUMS if name != "cost")
    for row in rows:
        groups = (csv_cell(getattr(row, name)) for name in by)
        lines.writerow((*groups, *(getattr(row, name) for name in counts), decimal(row.cost)))
    return text.getvalue()


def csv_cell(value: object) -> str:
    """Escapes a text that a spreadsheet would run as a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


_GROUPS: Mapping[By, str] = {"account": "account_id", "key": "key_id"}
"""The columns whose names differ from what they group by."""


def _named(query: Select[Any], by: Sequence[By]) -> Select[Any]:
    """The sums with the names of their accounts and keys, which are looked up once for each sum."""
    sums = query.subquery()
    joined: FromClause = sums
    names: list[ColumnElement[Any]] = []
    if "account" in by:
        joined, names = joined.join(accounts, sums.c.account_id == accounts.c.id), [accounts.c.email]
    if "key" in by:
        joined, names = joined.join(keys, sums.c.key_id == keys.c.id), [*names, keys.c.name, keys.c.hint]
    return select(sums, *names).select_from(joined)


def _sums(table: Table) -> tuple[ColumnElement[Any], ...]:
    return tuple(func.sum(table.c[name]).label(name) for name in CHARGE_SUMS)


def _within(query: Select[Any], table: Table, since: date | None, until: date | None) -> Select[Any]:
    if since is not None:
        query = query.where(table.c.day >= since)
    return query if until is None else query.where(table.c.day < until)


def _row(row: RowMapping) -> UsageRow:
    return UsageRow(
        day=row.get("day"),
        account_id=row.get("account_id"),
        account=row.get("email"),
        key_id=row.get("key_id"),
        key=f"{row['name']} ({row['hint']})" if "name" in row else None,
        model=row.get("model"),
        calls=int(row["calls"]),
        tokens=int(row["tokens"]),
        free_tokens=int(row["free_tokens"]),
        billed_tokens=int(row["billed_tokens"]),
        cost=int(row["cost"]),
    )
