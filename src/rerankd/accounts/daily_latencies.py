"""How long the answered calls of each day took. Kept for ever, as the sums of `daily_calls` are.

A row has the counts of all classes of a day, so that a year of an account is 365 rows. The list of calls adds to them
in the transaction that writes the calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, date
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Select, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.latencies import Latencies, class_of
from rerankd.accounts.schema import daily_latencies, daily_latency_totals

_Added = defaultdict[tuple[Any, ...], Counter[int]]
"""By the key of a table."""


def latencies_by_day(database: Database, account_id: int | None, since: date, until: date) -> dict[date, Latencies]:
    """Those of one account, or of all, on each day (UTC) that has some.

    A day before an upgrade has them only for the calls that the list of calls still had then.

    Args:
        until: the first day excluded.
    """
    table = daily_latency_totals if account_id is None else daily_latencies
    query = select(table.c.day, table.c.counts).where(table.c.day >= since, table.c.day < until)
    if account_id is not None:
        query = query.where(table.c.account_id == account_id)
    with database.read(REPORT_S) as connection:
        return {row.day: _read(row.counts) for row in connection.execute(query)}


def add_latencies(connection: Connection, records: Iterable[CallRecord]) -> None:
    """Adds answered calls to the counts of their days."""
    of_accounts: _Added = defaultdict(Counter)
    of_days: _Added = defaultdict(Counter)
    for record in records:
        if record.error is None:
            day, one = record.time.astimezone(UTC).date(), class_of(record.milliseconds)
            of_accounts[record.account_id, day][one] += 1
            of_days[day,][one] += 1
    for table, added in ((daily_latencies, of_accounts), (daily_latency_totals, of_days)):
        if added:
            _add(connection, table, added)


def _add(connection: Connection, table: Table, added: _Added) -> None:
    """Locks the rows, and writes their new counts. Sorted: two servers lock the same rows in the same order."""
    keys, names = sorted(added), table.primary_key.columns.keys()
    insert, replace = _STATEMENTS[connection.dialect.name][table.name]
    connection.execute(insert, [{**dict(zip(names, key, strict=True)), "counts": {}} for key in keys])
    stored = {tuple(row)[:-1]: _read(row.counts) for row in connection.execute(_locking(table, keys))}
    whole = {key: Counter(stored[key]) + added[key] for key in keys}
    connection.execute(
        replace, [{**dict(zip(names, key, strict=True)), "counts": _written(whole[key])} for key in keys]
    )


def _locking(table: Table, keys: list[tuple[Any, ...]]) -> Select[Any]:
    """The rows of these keys, and perhaps others of their accounts and days."""
    columns = list(table.primary_key.columns)
    query = select(*columns, table.c.counts).order_by(*columns).with_for_update()
    for column, values in zip(columns, zip(*keys, strict=True), strict=True):
        query = query.where(column.in_(sorted(set(values))))
    return query


def _read(counts: dict[str, int]) -> Latencies:
    return {int(one): number for one, number in counts.items()}


def _written(latencies: Latencies) -> dict[str, int]:
    return {f"{one}": latencies[one] for one in sorted(latencies)}


def _statements(module: ModuleType, table: Table) -> tuple[Any, Any]:
    """(makes a row unless it is there, writes its counts)."""
    new, key = module.insert(table), list(table.primary_key.columns)
    changed = {"counts": new.excluded.counts}
    return new.on_conflict_do_nothing(), new.on_conflict_do_update(index_elements=key, set_=changed)


_STATEMENTS = {
    module.dialect.name: {table.name: _statements(module, table) for table in (daily_latencies, daily_latency_totals)}
    for module in (sqlite, postgresql)
}
"""By the database's dialect, and by the table."""
