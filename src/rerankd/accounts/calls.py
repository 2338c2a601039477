"""The list of calls: what became of each, also of those that were refused. Kept for some days."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row, Select, delete, insert, select

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.daily_calls import add_to_sums
from rerankd.accounts.daily_latencies import add_latencies
from rerankd.accounts.database import REPORT_S, Database
from rerankd.accounts.schema import accounts, calls, keys
from rerankd.accounts.usage import csv_cell
from rerankd.accounts.validation import storable
from rerankd.money import decimal

Outcome = Literal["answered", "refused"]

CSV_COLUMNS = (
    *("time", "account", "key", "id", "api", "status", "model", "documents", "tokens", "milliseconds", "cost"),
    *("currency", "reason"),
)
CALLS_AT_ONCE = 1000
"""The calls that a long list reads together."""

_TEXTS = {"request_id": 200, "dialect": 50, "model": 300, "error": 50, "reason": 500}
"""The columns with texts, and their longest values."""


@dataclass(frozen=True, slots=True)
class ListedCall:
    """A call in the list. account: the e-mail address. key: the key's name and hint."""

    id: int
    account: str
    key: str
    call: CallRecord


@dataclass(frozen=True, slots=True)
class CallFilter:
    """A filter of calls; None: any.

    Attributes:
        since: the first moment included.
        before: only calls with a smaller id: the next page of a list.
    """

    account_id: int | None = None
    since: datetime | None = None
    outcome: Outcome | None = None
    status: int | None = None
    key_id: int | None = None
    model: str | None = None
    request_id: str | None = None
    before: int | None = None


class Calls:
    """The calls of one database. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, records: Sequence[CallRecord]) -> None:
        """Appends calls, in this order, and adds them to the sums and latencies of their days."""
        if not records:
            return
        with self._database.transaction() as connection:
            connection.execute(insert(calls), [_values(record) for record in records])
            add_to_sums(connection, records)
            add_latencies(connection, records)

    def find(self, wanted: CallFilter, limit: int) -> list[ListedCall]:
        """At most `limit` calls, the newest first."""
        with self._database.read(REPORT_S) as connection:
            return [_listed(row) for row in connection.execute(_query(wanted).limit(limit))]

    def pages(self, wanted: CallFilter, limit: int) -> Iterator[list[ListedCall]]:
        """The same in lists of at most CALLS_AT_ONCE, each read when it is asked for."""
        while found := self.find(wanted, min(limit, CALLS_AT_ONCE)):
            yield found
            limit -= len(found)
            if len(found) < CALLS_AT_ONCE or limit <= 0:
                return
            wanted = replace(wanted, before=found[-1].id)

    def delete_until(self, until: datetime, limit: int = 5000) -> int:
        """Deletes calls that ended before, at most `limit`. Returns their number."""
        old = select(calls.c.id).where(calls.c.time < until).limit(limit)
        with self._database.transaction() as connection:
            return connection.execute(delete(calls).where(calls.c.id.in_(old))).rowcount


def as_csv(listed: Iterable[ListedCall], currency: str, *, header: bool = True) -> str:
    """A header, then a line for each call. Costs in currency units."""
    text = io.StringIO()
    rows = csv.writer(text)
    if header:
        rows.writerow(CSV_COLUMNS)
    for one in listed:
        call = one.call
        where = (call.time.isoformat(timespec="milliseconds"), csv_cell(one.account), csv_cell(one.key))
        about = (csv_cell(call.request_id), call.dialect, call.status, csv_cell(call.model or ""))
        figures = (call.documents, call.tokens, call.milliseconds, decimal(call.cost), currency)
        rows.writerow((*where, *about, *figures, csv_cell(call.reason or "")))
    return text.getvalue()


def _values(record: CallRecord) -> dict[str, Any]:
    values = asdict(record)
    for name, length in _TEXTS.items():
        if values[name] is not None:
            values[name] = storable(values[name])[:length]
    return values


def _query(wanted: CallFilter) -> Select[Any]:
    columns = (calls, accounts.c.email, keys.c.name.label("key_name"), keys.c.hint)
    tables = calls.join(accounts, calls.c.account_id == accounts.c.id).join(keys, calls.c.key_id == keys.c.id)
    query = select(*columns).select_from(tables).order_by(calls.c.id.desc())
    for name in ("account_id", "status", "key_id", "model", "request_id"):
        if (value := getattr(wanted, name)) is not None:
            query = query.where(calls.c[name] == (storable(value) if isinstance(value, str) else value))
    if wanted.status is not None and wanted.status >= 400:
        query = query.where(calls.c.error.is_not(None))  # for the index of refused calls
    if wanted.since is not None:
        query = query.where(calls.c.time >= wanted.since)
    if wanted.outcome is not None:
        query = query.where(calls.c.error.is_(None) if wanted.outcome == "answered" else calls.c.error.is_not(None))
    if wanted.before is not None:
        query = query.where(calls.c.id < wanted.before)
    return query


def _listed(row: Row[Any]) -> ListedCall:
    record = CallRecord(**{one.name: row._mapping[one.name] for one in fields(CallRecord)})
    return ListedCall(row.id, row.email, f"{row.key_name} ({row.hint})", record)
