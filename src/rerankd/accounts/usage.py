"""Charges summed by day, key, model or account, also as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, RowMapping, func, literal_column, select, type_coerce

from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import EPOCH, accounts, entries, keys
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


_GROUPS: dict[str, tuple[ColumnElement[Any], ...]] = {
    # Whole days since 1970. A literal, since PostgreSQL would not match two parameters in GROUP BY.
    "day": ((type_coerce(entries.c.time, BigInteger) // literal_column("86400000000", BigInteger)).label("day"),),
    "account": (entries.c.account_id, accounts.c.email),
    "key": (entries.c.key_id, keys.c.name, keys.c.hint),
    "model": (entries.c.model,),
}
_SUMS = (
    func.count().label("calls"),
    func.sum(entries.c.tokens).label("tokens"),
    func.sum(entries.c.free_tokens).label("free_tokens"),
    func.sum(entries.c.billed_tokens).label("billed_tokens"),
    (-func.sum(entries.c.amount)).label("cost"),
)


def usage(
    database: Database,
    by: Sequence[By],
    account_id: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[UsageRow]:
    """The charges of one account, or of all, grouped and sorted by `by`.

    Args:
        by: empty for one sum.
        since: the first moment included.
        until: the first moment excluded.

    Raises:
        InvalidRequest: `by` has an unknown column.
    """
    if unknown := sorted(set(by) - set(get_args(By))):
        raise InvalidRequest(f"Usage is summed by {', '.join(get_args(By))}; not by {', '.join(unknown)}.")
    groups = [column for name in dict.fromkeys(by) for column in _GROUPS[name]]
    tables = entries.join(accounts, entries.c.account_id == accounts.c.id).join(keys, entries.c.key_id == keys.c.id)
    query = select(*groups, *_SUMS).select_from(tables).where(entries.c.kind == "charge")
    if account_id is not None:
        query = query.where(entries.c.account_id == account_id)
    if since is not None:
        query = query.where(entries.c.time >= since)
    if until is not None:
        query = query.where(entries.c.time < until)
    query = query.group_by(*groups).having(func.count() > 0)
    with database.read(REPORT_S) as connection:
        rows = [_row(row) for row in connection.execute(query).mappings()]
    return sorted(rows, key=lambda row: [getattr(row, name) for name in by])


def as_csv(rows: Sequence[UsageRow], by: Sequence[By]) -> str:
    """A header, then a line for each row: the columns of `by`, then the sums. Costs in currency units."""
    text = io.StringIO()
    lines = csv.writer(text)
    sums = ("calls", "tokens", "free_tokens", "billed_tokens")
    lines.writerow((*by, *sums, "cost"))
    for row in rows:
        groups = (csv_cell(getattr(row, name)) for name in by)
        lines.writerow((*groups, *(getattr(row, name) for name in sums), decimal(row.cost)))
    return text.getvalue()


def _row(row: RowMapping) -> UsageRow:
    return UsageRow(
        day=(EPOCH + timedelta(days=row["day"])).date() if "day" in row else None,
        account_id=row.get("account_id"),
        account=row.get("email"),
        key_id=row.get("key_id"),
        key=f"{row['name']} ({row['hint']})" if "name" in row else None,
        model=row.get("model"),
        calls=row["calls"],
        tokens=int(row["tokens"]),
        free_tokens=int(row["free_tokens"]),
        billed_tokens=int(row["billed_tokens"]),
        cost=int(row["cost"]),
    )


def csv_cell(value: object) -> str:
    """Escapes a text that a spreadsheet would run as a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
