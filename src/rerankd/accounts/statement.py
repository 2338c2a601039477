"""The statement of an account: each credit, the charges of each day, and the balance after each; also as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, Row, Subquery, func, literal_column, select, type_coerce

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import accounts, entries
from rerankd.accounts.usage import csv_cell
from rerankd.money import decimal

Kind = Literal["credit", "charges"]

CSV_COLUMNS = ("time", "kind", "calls", "note", "by", "amount", "balance", "currency")


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A credit, or consecutive charges of one day (UTC). Money in millionths.

    Attributes:
        time: the time of the credit, or of the last charge.
        by: the e-mail address of the account that added the credit; None: the operator of the server.
        calls: the number of charged calls.
    """

    time: datetime
    kind: Kind
    note: str | None
    by: str | None
    calls: int
    amount: int
    balance: int


def statement(
    database: Database,
    account_id: int,
    since: datetime | None = None,
    until: datetime | None = None,
    newest: int | None = None,
) -> list[StatementLine]:
    """The oldest first.

    Args:
        since: the first moment included.
        until: the first moment excluded.
        newest: only so many lines, the newest; None: all.
    """
    lines = _lines(account_id, since, until)
    made_by = accounts.alias()
    query = (
        select(lines, entries.c.note, entries.c.balance_after, made_by.c.email)
        .join_from(lines, entries, entries.c.id == lines.c.last)
        .join(made_by, entries.c.made_by == made_by.c.id, isouter=True)
        .order_by(lines.c.last.desc())
        .limit(newest)
    )
    with database.read(REPORT_S) as connection:
        return [_line(row) for row in connection.execute(query)][::-1]


def _lines(account_id: int, since: datetime | None, until: datetime | None) -> Subquery:
    """A row for each line: its last entry, the number of its entries, and their sum."""
    is_credit = func.count().filter(entries.c.kind == "credit")
    day = type_coerce(entries.c.time, BigInteger) // literal_column("86400000000", BigInteger)
    query = select(
        entries.c.id,
        entries.c.kind,
        entries.c.time,
        entries.c.amount,
        is_credit.over(order_by=entries.c.id).label("credits_so_far"),
        # Never goes back: entries that two processes wrote around midnight may have times in the other order.
        func.max(day).over(order_by=entries.c.id).label("day"),
    ).where(entries.c.account_id == account_id)
    if since is not None:
        query = query.where(entries.c.time >= since)
    if until is not None:
        query = query.where(entries.c.time < until)
    one = query.subquery()
    sums = (func.max(one.c.id).label("last"), func.max(one.c.time).label("time"), func.count().label("calls"))
    amount = func.sum(one.c.amount).label("amount")
    return select(one.c.kind, *sums, amount).group_by(one.c.credits_so_far, one.c.kind, one.c.day).subquery()


def as_csv(lines: Iterable[StatementLine], currency: str) -> str:
    """A header, then a line for each line of the statement. Money in currency units."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(CSV_COLUMNS)
    for line in lines:
        time, note, by = line.time.isoformat(timespec="seconds"), csv_cell(line.note or ""), csv_cell(line.by or "")
        rows.writerow((time, line.kind, line.calls, note, by, decimal(line.amount), decimal(line.balance), currency))
    return text.getvalue()


def _line(row: Row[Any]) -> StatementLine:
    amount, balance = int(row.amount), row.balance_after
    if row.kind == "credit":
        return StatementLine(row.time, "credit", row.note, row.email, 0, amount, balance)
    return StatementLine(row.time, "charges", None, None, row.calls, amount, balance)
