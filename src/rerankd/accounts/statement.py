"""The statement of an account: each credit, the charges of each day, and the balance after each; also as CSV.

The charges of a day without a credit come from the sums of the day. Only a day with a credit, whose charges are split
into those before and after it, is read entry by entry.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

from sqlalchemy import BigInteger, Connection, Row, Select, func, literal, literal_column, null, select, type_coerce

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import IS_CREDIT, accounts, daily_charges, entries
from rerankd.accounts.usage import csv_cell
from rerankd.money import decimal

Kind = Literal["credit", "charges"]

CSV_COLUMNS = ("time", "kind", "calls", "note", "by", "amount", "balance", "currency")


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A credit, or the charges of one day (UTC) between two credits. Money in millionths.

    Attributes:
        time: the time of the credit, or of the last charge.
        by: the e-mail address of the account that added the credit; None: the operator of the server.
        calls: the number of charged calls.
        balance: after this line: that of the line before it, and the amount.
    """

    time: datetime
    kind: Kind
    note: str | None
    by: str | None
    calls: int
    amount: int
    balance: int


_Line = tuple[tuple[date, int], StatementLine]
"""A line with its place among the others: its day, and its last entry."""


def statement(
    database: Database,
    account_id: int,
    since: date | None = None,
    until: date | None = None,
    newest: int | None = None,
) -> list[StatementLine]:
    """The oldest first.

    Args:
        since: the first day included, in UTC.
        until: the first day excluded.
        newest: the most lines, of which the newest are kept; None: all.
    """
    with database.read(REPORT_S) as connection:
        balance = connection.scalar(select(accounts.c.balance).where(accounts.c.id == account_id)) or 0
        if until is not None:
            balance -= sum(line.amount for _, line in _lines(connection, account_id, until, None))
        lines = [line for _, line in _lines(connection, account_id, since, until)]
    newest_first: list[StatementLine] = []
    for line in reversed(lines if newest is None else lines[-newest:]):
        newest_first.append(replace(line, balance=balance))
        balance -= line.amount
    return newest_first[::-1]


def as_csv(lines: Iterable[StatementLine], currency: str) -> str:
    """A header, then a line for each line of the statement. Money in currency units."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(CSV_COLUMNS)
    for line in lines:
        time, note, by = line.time.isoformat(timespec="seconds"), csv_cell(line.note or ""), csv_cell(line.by or "")
        rows.writerow((time, line.kind, line.calls, note, by, decimal(line.amount), decimal(line.balance), currency))
    return text.getvalue()


def _lines(connection: Connection, account_id: int, since: date | None, until: date | None) -> list[_Line]:
    """The oldest first, still without balances."""
    found = [_line(row) for row in connection.execute(_credits(account_id, since, until))]
    split = {day for (day, _), _ in found}
    found += [_line(row) for row in connection.execute(_whole_days(account_id, since, until)) if row.day not in split]
    for day in split:
        found += [_line(row) for row in connection.execute(_between_credits(account_id, day))]
    return sorted(found, key=lambda line: line[0])


def _line(row: Row[Any]) -> _Line:
    line = StatementLine(row.time, row.kind, row.note, row.email, int(row.calls), int(row.amount), 0)
    return (row.time.astimezone(UTC).date(), row.last), line


def _credits(account_id: int, since: date | None, until: date | None) -> Select[Any]:
    giver = accounts.alias()
    query = (
        select(entries.c.id.label("last"), entries.c.time, entries.c.kind, entries.c.note, giver.c.email)
        .add_columns(literal(0).label("calls"), entries.c.amount)
        .join_from(entries, giver, entries.c.made_by == giver.c.id, isouter=True)
        .where(entries.c.account_id == account_id, IS_CREDIT)
    )
    if since is not None:
        query = query.where(entries.c.time >= _start(since))
    return query if until is None else query.where(entries.c.time < _start(until))


def _whole_days(account_id: int, since: date | None, until: date | None) -> Select[Any]:
    """The charges of each day."""
    day = daily_charges.c.day
    start = type_coerce(day, BigInteger) * _DAY
    last = (entries.c.account_id == account_id) & (_TIME >= start) & (_TIME < start + _DAY)
    query = (
        select(
            day, select(func.max(entries.c.time)).where(last).correlate(daily_charges).scalar_subquery().label("time")
        )
        .add_columns(*_CHARGES, func.sum(daily_charges.c.calls).label("calls"))
        .add_columns((-func.sum(daily_charges.c.cost)).label("amount"), literal(0).label("last"))
        .where(daily_charges.c.account_id == account_id)
        .group_by(day)
    )
    if since is not None:
        query = query.where(day >= since)
    return query if until is None else query.where(day < until)


def _between_credits(account_id: int, day: date) -> Select[Any]:
    """The charges of a day, before, between and after its credits."""
    credits_so_far = func.count().filter(entries.c.kind == "credit").over(order_by=entries.c.id)
    one = (
        select(entries.c.id, entries.c.kind, entries.c.time, entries.c.amount, credits_so_far.label("credits_so_far"))
        .where(entries.c.account_id == account_id)
        .where(entries.c.time >= _start(day), entries.c.time < _start(day + timedelta(days=1)))
        .subquery()
    )
    return (
        select(func.max(one.c.id).label("last"), func.max(one.c.time).label("time"), *_CHARGES)
        .add_columns(func.count().label("calls"), func.sum(one.c.amount).label("amount"))
        .where(one.c.kind == "charge")
        .group_by(one.c.credits_so_far)
    )


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


_DAY = literal_column("86400000000", BigInteger)
_TIME = type_coerce(entries.c.time, BigInteger)
_CHARGES = (literal("charges").label("kind"), null().label("note"), null().label("email"))
"""What these lines have in common."""
