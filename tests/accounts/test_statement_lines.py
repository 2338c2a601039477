"""The lines of a statement are those that the entries make, on SQLite and PostgreSQL."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby

import pytest
from sqlalchemy import select

from rerankd.accounts.ledger import Ledger
from rerankd.accounts.schema import entries
from rerankd.accounts.statement import statement
from rerankd.accounts.store import Store
from rerankd.prices import Price
from support.payers import Clock, Payer, new_payer

START = datetime(2027, 3, 1, tzinfo=UTC)
PRICE = Price(model="m", input_price=Decimal("0.5"))


@pytest.fixture
def payer(store: Store) -> Payer:
    """Two weeks of credits and charges; some days have none, some several credits. Another account has its own."""
    chance, clock = random.Random(4), Clock(START.timestamp())
    ledger = Ledger(store.database, clock=clock)
    payer, other = new_payer(store, ledger, credit=10**6), new_payer(store, ledger, credit=10**6)
    for _ in range(120):
        clock.now += chance.randint(0, 6 * 3600)
        if chance.random() < 0.08:
            ledger.add_credits(payer.account_id, chance.choice([5_000, -70]), "again", other.account_id)
        for one in (payer, other):
            one.ledger.settle(one.reserve(chance.randint(1, 4000), PRICE))
    return payer


def lines_of_entries(store: Store, account_id: int, days: tuple[date | None, date | None]) -> list[tuple[object, ...]]:
    """Read one by one: a line for each credit, and for consecutive charges of a day."""
    since, until = days
    with store.database.read() as connection:
        rows = connection.execute(
            select(entries).where(entries.c.account_id == account_id).order_by(entries.c.id)
        ).all()
    rows = [row for row in rows if (since or date.min) <= row.time.date() < (until or date.max)]
    lines: list[tuple[object, ...]] = []
    for (kind, *_), group in groupby(rows, lambda row: (row.kind, row.time.date(), row.kind == "credit" and row.id)):
        ones = list(group)
        last, calls = ones[-1], 0 if kind == "credit" else len(ones)
        lines.append((last.time, kind, calls, sum(one.amount for one in ones), last.balance_after, last.note))
    return lines


DAY_4, DAY_9 = (START.date() + timedelta(days=days) for days in (4, 9))


@pytest.mark.parametrize(
    "days",
    [(None, None), (DAY_4, None), (None, DAY_9), (DAY_4, DAY_9), (DAY_9, DAY_4)],
    ids=["all", "since", "until", "both", "none"],
)
def test_a_statement_has_the_lines_of_the_entries(
    store: Store, payer: Payer, days: tuple[date | None, date | None]
) -> None:
    lines = statement(store.database, payer.account_id, *days)
    kinds = {"credit": "credit", "charges": "charge"}
    found = [(one.time, kinds[one.kind], one.calls, one.amount, one.balance, one.note) for one in lines]
    assert found == lines_of_entries(store, payer.account_id, days)
    assert statement(store.database, payer.account_id, *days, newest=3) == lines[-3:]
    assert all(line.by is not None for line in lines if line.note == "again")


def test_an_unknown_account_has_no_lines(store: Store) -> None:
    assert statement(store.database, 99) == []
