"""The statement of an account: each credit, the charges of each day, and the balance after each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, select

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import accounts, entries


@dataclass(frozen=True, slots=True)
class StatementLine:
    """A credit, or consecutive charges of one day (UTC). Money in millionths.

    Attributes:
        time: the time of the credit, or of the last charge.
        by: the e-mail address of the account that added the credit; None: the operator of the server.
        calls: the number of charged calls.
    """

    time: datetime
    kind: Literal["credit", "charges"]
    note: str | None
    by: str | None
    calls: int
    amount: int
    balance: int


def statement(
    database: Database, account_id: int, since: datetime | None = None, until: datetime | None = None
) -> list[StatementLine]:
    """The oldest first.

    Args:
        since: the first moment included.
        until: the first moment excluded.
    """
    columns = (entries.c.time, entries.c.kind, entries.c.note, accounts.c.email, entries.c.amount)
    tables = entries.join(accounts, entries.c.made_by == accounts.c.id, isouter=True)
    query = select(*columns, entries.c.balance_after).select_from(tables).where(entries.c.account_id == account_id)
    if since is not None:
        query = query.where(entries.c.time >= since)
    if until is not None:
        query = query.where(entries.c.time < until)
    with database.read(REPORT_S) as connection:
        return list(_joined(connection.execute(query.order_by(entries.c.id))))


def _joined(rows: Iterable[Row[Any]]) -> Iterator[StatementLine]:
    day: StatementLine | None = None  # of charges, not yet complete
    for row in rows:
        if day is not None and (row.kind == "credit" or row.time.date() != day.time.date()):
            yield day
            day = None
        if row.kind == "credit":
            yield StatementLine(row.time, "credit", row.note, row.email, 0, row.amount, row.balance_after)
            continue
        before = day or StatementLine(row.time, "charges", None, None, 0, 0, 0)
        day = replace(
            before,
            time=row.time,
            calls=before.calls + 1,
            amount=before.amount + row.amount,
            balance=row.balance_after,
        )
    if day is not None:
        yield day
