"""`rerankd usage`: the charges by day, key, model or account."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

from cyclopts import Parameter

from rerankd.accounts.schema import CHARGE_SUMS
from rerankd.accounts.usage import UsageRow, as_csv
from rerankd.accounts.usage import usage as usage_rows
from rerankd.cli.options import DAY, NONE_GIVEN, Given, command, takes
from rerankd.cli.store import AS_TABLE, Formats, account_of, currency, opened, print_records
from rerankd.cli.table import show_table
from rerankd.config import DatabaseSettings
from rerankd.money import decimal

app = command("usage")


@app.default
@takes(DatabaseSettings)
def usage(
    *,
    by: Annotated[str, Parameter(metavar="WHAT,…")] = "day",
    account: Annotated[str | None, Parameter(metavar="EMAIL")] = None,
    since: Annotated[datetime | None, DAY] = None,
    until: Annotated[datetime | None, DAY] = None,
    formats: Formats = AS_TABLE,
    given: Given = NONE_GIVEN,
) -> int:
    """Show what was charged.

    Args:
        by: day (UTC), key, model, account, or several of them, as in key,day
        account: this account only
        since: from this day on, as 2030-01-01
        until: up to and including this day
    """
    columns: list[Any] = by.split(",")  # usage_rows checks them
    unit = currency(given)
    days = since and since.date(), until and until.date() + timedelta(days=1)
    with opened(given) as store:
        account_id = account_of(store, account).id if account else None
        rows = usage_rows(store.database, columns, account_id, *days)
        total = usage_rows(store.database, [], account_id, *days) if len(rows) > 1 else []
    if formats.as_csv:
        sys.stdout.write(as_csv(rows, columns))
        return 0
    if print_records(formats, [_record(row, columns, unit) for row in rows]):
        return 0
    lines = [(*(getattr(row, name) for name in columns), *_sums(row)) for row in rows]
    lines += [("all", *("" for _ in columns[1:]), *_sums(row)) for row in total]
    sums = ("calls", "tokens", "free tokens", "billed tokens", f"cost, {unit}")
    show_table((*columns, *sums), lines, numbers=sums)
    return 0


def _record(row: UsageRow, columns: Sequence[str], unit: str) -> dict[str, object]:
    sums = {name: getattr(row, name) for name in CHARGE_SUMS}
    return {**{name: _plain(getattr(row, name)) for name in columns}, **sums, "currency": unit}


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _sums(row: UsageRow) -> tuple[str, ...]:
    counts = (row.calls, row.tokens, row.free_tokens, row.billed_tokens)
    return *(f"{count:,}" for count in counts), decimal(row.cost)
