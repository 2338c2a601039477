"""The calls of each day, also those that were refused: their number, documents and time. Kept for ever.

The list of calls adds to these sums in the transaction that writes the calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date
from types import ModuleType
from typing import Any

from sqlalchemy import Column, Connection, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import CALL_SUMS, daily_call_totals, daily_calls

_Sums = defaultdict[tuple[Any, ...], Counter[str]]
"""By the key of a table."""


@dataclass(frozen=True, slots=True)
class CallSums:
    """Of one day. documents, milliseconds: of answered calls."""

    answered: int
    refused: int
    documents: int
    milliseconds: int

    @property
    def mean_ms(self) -> int | None:
        """Of an answered call; None if there is none."""
        return round(self.milliseconds / self.answered) if self.answered else None


def calls_by_day(database: Database, account_id: int | None, since: date, until: date) -> dict[date, CallSums]:
    """The calls of one account, or of all, on each day (UTC) that has calls.

    Args:
        until: the first day excluded.
    """
    table = daily_call_totals if account_id is None else daily_calls
    return _sums_by(database, table.c.day, account_id, since, until)


def calls_by_key(database: Database, account_id: int, since: date, until: date) -> dict[int, CallSums]:
    """The calls of one account in a span of days, by the id of each key that has calls."""
    return _sums_by(database, daily_calls.c.key_id, account_id, since, until)


def _sums_by(
    database: Database, column: Column[Any], account_id: int | None, since: date, until: date
) -> dict[Any, CallSums]:
    table = column.table
    sums = (func.sum(table.c[name]) for name in CALL_SUMS)
    query = select(column, *sums).where(table.c.day >= since, table.c.day < until).group_by(column)
    if account_id is not None:
        query = query.where(table.c.account_id == account_id)
    with database.read(REPORT_S) as connection:
        return {key: CallSums(*map(int, values)) for key, *values in connection.execute(query)}


def add_to_sums(connection: Connection, records: Iterable[CallRecord]) -> None:
    """Adds calls to the sums of their days."""
    of_keys: _Sums = defaultdict(Counter)
    of_days: _Sums = defaultdict(Counter)
    for record in records:
        day, added = record.time.astimezone(UTC).date(), _sums_of(record)
        of_keys[record.account_id, day, record.key_id].update(added)
        of_days[day,].update(added)
    for table, sums in ((daily_calls, of_keys), (daily_call_totals, of_days)):
        key_names, names = table.primary_key.columns.keys(), CALL_SUMS
        # Sorted: two servers that write the same rows lock them in the same order.
        keys = sorted(sums)
        rows = [{**dict(zip(key_names, key, strict=True)), **{name: sums[key][name] for name in names}} for key in keys]
        connection.execute(_ADD[connection.dialect.name][table.name], rows)


def _sums_of(record: CallRecord) -> Mapping[str, int]:
    if record.error is not None:
        return {"refused": 1}
    return {"answered": 1, "documents": record.documents or 0, "milliseconds": record.milliseconds}


def _addition(module: ModuleType, table: Table) -> Any:
    """Inserts a row of sums, or adds to the one that is there."""
    new = module.insert(table)
    changed = {name: table.c[name] + new.excluded[name] for name in CALL_SUMS}
    return new.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed)


_ADD = {
    module.dialect.name: {table.name: _addition(module, table) for table in (daily_calls, daily_call_totals)}
    for module in (sqlite, postgresql)
}
"""By the database's dialect, and by the table."""
