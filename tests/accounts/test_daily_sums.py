"""The sums of each day are those of the entries and of the calls, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text

from rerankd.accounts import database
from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.daily_calls import CallSums, calls_by_day, calls_by_key
from rerankd.accounts.daily_latencies import latencies_by_day
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.schema import CHARGE_SUMS, daily_charge_totals, daily_charges, entries
from rerankd.accounts.store import Store, open_store
from rerankd.errors import OutOfCredit
from rerankd.prices import Price
from support.payers import Clock, Payer, new_payer

DAY = 86_400
MIDNIGHT = datetime(2027, 3, 2, tzinfo=UTC)
PRICES = (Price(model="paid", input_price="0.37"), Price(model="partly free", input_price="0.5", free_tokens=700))
FREE = Price(model="free")
FROM_ON = date(2000, 1, 1), date(2100, 1, 1)


def sums_of_entries(store: Store) -> dict[tuple[Any, ...], Counter[str]]:
    """By account, day, key and model; without the database's help."""
    sums: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    with store.database.read() as connection:
        for row in connection.execute(select(entries).where(entries.c.kind == "charge")):
            added = {"calls": 1, "cost": -row.amount, **{name: getattr(row, name) for name in CHARGE_SUMS[1:4]}}
            sums[row.account_id, row.time.date(), row.key_id, row.model].update(added)
    return dict(sums)


def stored_sums(store: Store) -> dict[tuple[Any, ...], Counter[str]]:
    """As the table has them; the table of all accounts has the same, less the account and the key."""
    with store.database.read() as connection:
        rows = connection.execute(select(daily_charges)).mappings().all()
        totals = connection.execute(select(daily_charge_totals)).mappings().all()
    of_days: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    of_all: defaultdict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    for place, group in ((of_days, rows), (of_all, totals)):
        for row in group:
            place[row["day"], row["model"]].update({name: row[name] for name in CHARGE_SUMS})
    assert of_days == of_all
    keys = [(row["account_id"], row["day"], row["key_id"], row["model"]) for row in rows]
    return {key: Counter({name: row[name] for name in CHARGE_SUMS}) for key, row in zip(keys, rows, strict=True)}


STEPS = st.one_of(
    st.tuples(st.just("call"), st.integers(0, 1), st.sampled_from([1, 300, 1000]), st.sampled_from(PRICES)),
    st.tuples(st.just("repeat"), st.integers(0, 1), st.sampled_from("ab")),
    st.tuples(st.just("release"), st.integers(0, 1)),
    st.tuples(st.just("credit"), st.integers(0, 1), st.sampled_from([500, -100])),
    st.tuples(st.just("wait"), st.sampled_from([1, DAY // 2, DAY, -DAY])),
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=20))
def test_after_any_sequence_the_sums_are_those_of_the_entries(store: Store, steps: list[Any]) -> None:
    clock = Clock(MIDNIGHT.timestamp() - 10)
    ledger = Ledger(store.database, clock=clock)
    payers = [new_payer(store, ledger, credit=300) for _ in range(2)]
    for what, *arguments in steps:
        match what, arguments:
            case "wait", [seconds]:
                clock.now += seconds
            case "credit", [payer, micro]:
                ledger.add_credits(payers[payer].account_id, micro)
            case "release", [payer]:
                ledger.release(payers[payer].reserve(1, FREE))
            case "repeat", [payer, name]:
                charge(payers[payer], 10, PRICES[0], name)
            case "call", [payer, tokens, price]:
                charge(payers[payer], tokens, price, None)
    assert stored_sums(store) == sums_of_entries(store)
    assert store.ledger.check() == []


def charge(payer: Payer, tokens: int, price: Price, request_id: str | None) -> None:
    try:
        reservation = payer.reserve(tokens, price, request_id)
    except OutOfCredit:
        return
    payer.ledger.settle(reservation)
    payer.ledger.settle(reservation)  # charges once


def test_calls_of_many_accounts_at_once_miss_no_sum(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_S", 60)  # a busy machine may let one wait long for the others
    payers = [new_payer(store, credit=10**6) for _ in range(4)]
    failures: list[Exception] = []

    def work(payer: Payer) -> None:
        try:
            for number in range(20):
                payer.ledger.settle(payer.reserve(10 + number))
        except Exception as failure:
            failures.append(failure)

    workers = [threading.Thread(target=work, args=(payer,)) for payer in payers * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert stored_sums(store) == sums_of_entries(store)


AT_0007 = """
INSERT INTO accounts (id, email, name, role, created, disabled, balance, reserved)
    VALUES (1, 'a@example.org', '', 'user', 0, FALSE, 0, 0), (18, 'b@example.org', '', 'user', 0, FALSE, 0, 0);
INSERT INTO keys (id, account_id, name, hash, hint, created, models)
    VALUES (1, 1, 'k', 'x', 'h', 0, '[]'), (2, 18, 'k', 'y', 'h', 0, '[]');
INSERT INTO entries (account_id, kind, amount, balance_after, time, tokens, free_tokens, billed_tokens)
    VALUES (1, 'credit', 1000, 1000, 5, 0, 0, 0)
"""


def test_an_older_database_is_summed_when_it_is_upgraded(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    now = int(time.time() * 1e6)
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "rerankd.accounts:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
        for statement in AT_0007.split(";"):
            connection.execute(text(statement))
        for number, (days_ago, account, error) in enumerate(
            [(40, 1, None), (40, 1, None), (1, 18, None), (1, 1, "RateLimited"), (0, 1, None), (0, 18, None)]
        ):
            row: dict[str, object] = {
                "account": account,
                "key": 1 if account == 1 else 2,
                "time": now - days_ago * DAY * 10**6,
            }
            row |= {"number": number, "error": error}
            connection.execute(
                text(
                    "INSERT INTO entries (account_id, kind, amount, balance_after, time, key_id, model, tokens, "
                    "free_tokens, billed_tokens) VALUES (:account, 'charge', -:number, 0, :time, :key, 'm', 7, 3, 4)"
                ),
                row,
            )
            connection.execute(
                text(
                    "INSERT INTO calls (account_id, key_id, time, request_id, dialect, status, milliseconds, "
                    "documents, cost, error) VALUES (:account, :key, :time, 'r', 'd', 200, 10 + :number, 5, 0, :error)"
                ),
                row,
            )
    engine.dispose()
    store = open_store(database_url)
    sums = stored_sums(store)
    assert sums == sums_of_entries(store) and sum(one["calls"] for one in sums.values()) == 6
    today = datetime.fromtimestamp(now / 1e6, UTC).date()
    assert calls_by_day(store.database, None, today - timedelta(days=50), today - timedelta(days=30)) == {
        today - timedelta(days=40): CallSums(2, 0, 10, 21)
    }
    assert calls_by_key(store.database, 1, *FROM_ON) == {1: CallSums(3, 1, 15, 10 + 11 + 14)}
    assert latencies_by_day(store.database, None, today - timedelta(days=50), today - timedelta(days=30)) == {
        today - timedelta(days=40): {10: 1, 11: 1}
    }
    assert latencies_by_day(store.database, 18, *FROM_ON) == {
        today - timedelta(days=1): {12: 1},
        today: {15: 1},
    }
    store.database.close()


def test_the_sums_of_calls_stay_when_the_calls_are_deleted(store: Store) -> None:
    payers = [new_payer(store) for _ in range(2)]
    made = [
        CallRecord(MIDNIGHT + timedelta(seconds=seconds), *key, f"r{seconds}", "jina", status, 10, "m", 3, 90, 9, error)
        for key in ((payer.caller.account_id, payer.caller.key_id) for payer in payers)
        for seconds, status, error in ((-1, 200, None), (0, 200, None), (1, 429, "RateLimited"), (2, 200, None))
    ]
    store.calls.add(made[:3])
    store.calls.add(made[3:])
    assert store.calls.delete_until(MIDNIGHT + timedelta(days=1)) == 8
    own, today = payers[0].account_id, MIDNIGHT.date()
    yesterday = today - timedelta(days=1)
    assert calls_by_day(store.database, own, *FROM_ON) == {
        yesterday: CallSums(1, 0, 3, 10),
        today: CallSums(2, 1, 6, 20),
    }
    assert calls_by_day(store.database, None, today, date(2100, 1, 1)) == {today: CallSums(4, 2, 12, 40)}
    assert calls_by_key(store.database, own, *FROM_ON) == {payers[0].caller.key_id: CallSums(3, 1, 9, 30)}
    assert (CallSums(3, 1, 9, 31).mean_ms, CallSums(0, 1, 0, 0).mean_ms) == (10, None)


def test_servers_that_list_calls_of_the_same_accounts_do_not_wait_for_each_other(store: Store) -> None:
    payers = [new_payer(store) for _ in range(6)]
    made = [
        CallRecord(MIDNIGHT, one.account_id, one.caller.key_id, "r", "jina", 200, 10, "m", 1, 1, 1) for one in payers
    ]
    failures: list[Exception] = []

    def add(records: list[CallRecord]) -> None:
        try:
            for _ in range(20):
                store.calls.add(records)
        except Exception as failure:
            failures.append(failure)

    writers = [threading.Thread(target=add, args=(order,)) for order in (made, made[::-1], [replace(made[2])] * 9)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert calls_by_day(store.database, None, *FROM_ON)[MIDNIGHT.date()].answered == 20 * (6 + 6 + 9)
    assert latencies_by_day(store.database, None, *FROM_ON) == {MIDNIGHT.date(): {10: 20 * (6 + 6 + 9)}}
    assert latencies_by_day(store.database, payers[2].account_id, *FROM_ON) == {MIDNIGHT.date(): {10: 20 * (1 + 1 + 9)}}
