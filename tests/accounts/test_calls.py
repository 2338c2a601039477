"""The list of calls, on SQLite and PostgreSQL."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.calls import CallFilter, as_csv
from rerankd.accounts.store import Store
from support.payers import Payer, new_payer

NOW = datetime.now(UTC)


def record_of(payer: Payer, request_id: str, **changes: object) -> CallRecord:
    caller = payer.caller
    record = CallRecord(NOW, caller.account_id, caller.key_id, request_id, "cohere-v2", 200, 12, "m", 3, 90, 9)
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.fixture
def payer(store: Store) -> Payer:
    payer, other = new_payer(store), new_payer(store)
    old = NOW - timedelta(days=10)
    refused = {"status": 429, "error": "RateLimited", "reason": "Too many.", "documents": None, "tokens": None}
    store.calls.add([record_of(payer, "old", time=old), record_of(payer, "refused", cost=0, **refused)])
    store.calls.add([record_of(other, "another's"), record_of(payer, "new", model="n"), record_of(payer, "newest")])
    store.calls.add([])
    return payer


def ids(store: Store, limit: int = 10, **wanted: object) -> list[str]:
    return [one.call.request_id for one in store.calls.find(CallFilter(**wanted), limit)]  # type: ignore[arg-type]


def test_filters(store: Store, payer: Payer) -> None:
    own = payer.account_id
    assert ids(store, account_id=own) == ["newest", "new", "refused", "old"]
    assert ids(store) == ["newest", "new", "another's", "refused", "old"]
    assert ids(store, account_id=own, since=NOW - timedelta(days=1)) == ["newest", "new", "refused"]
    assert ids(store, account_id=own, outcome="refused") == ids(store, account_id=own, status=429) == ["refused"]
    assert ids(store, account_id=own, outcome="answered") == ["newest", "new", "old"]
    assert ids(store, account_id=own, model="n") == ids(store, account_id=own, request_id="new") == ["new"]
    assert ids(store, key_id=payer.caller.key_id, limit=2) == ["newest", "new"]
    assert ids(store, account_id=own, request_id="another's") == ids(store, request_id="\0\ud800") == []


def test_a_list_continues_where_its_page_ended(store: Store, payer: Payer) -> None:
    first = store.calls.find(CallFilter(payer.account_id), 3)
    assert ids(store, account_id=payer.account_id, before=first[-1].id) == ["old"]


def test_old_calls_are_deleted_in_bounded_steps(store: Store, payer: Payer) -> None:
    store.calls.add([record_of(payer, "older", time=NOW - timedelta(days=20))])
    week_ago = NOW - timedelta(days=7)
    assert [store.calls.delete_until(week_ago, limit=1) for _ in range(3)] == [1, 1, 0]
    assert ids(store) == ["newest", "new", "another's", "refused"]


def test_texts_that_no_database_stores(store: Store, payer: Payer) -> None:
    store.calls.add([record_of(payer, "a\0b\ud800" + "c" * 500, reason="d" * 5000)])
    (listed,) = store.calls.find(CallFilter(payer.account_id), 1)
    assert listed.call.request_id.startswith("a\N{REPLACEMENT CHARACTER}b?ccc") and len(listed.call.request_id) == 200
    assert listed.call.reason == "d" * 500


def test_csv_computes_nothing(store: Store, payer: Payer) -> None:
    store.calls.add([record_of(payer, "=1+1")])
    rows = list(csv.DictReader(io.StringIO(as_csv(store.calls.find(CallFilter(payer.account_id), 3), "EUR"))))
    assert [row["id"] for row in rows] == ["'=1+1", "newest", "new"]
    assert (rows[1]["status"], rows[1]["tokens"], rows[1]["cost"], rows[1]["currency"]) == (
        "200",
        "90",
        "0.000009",
        "EUR",
    )
    assert as_csv([], "EUR").count("\n") == 1
