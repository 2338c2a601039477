"""Budgets of keys: what a key may spend in a month, to the millionth, also when many call at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, select, text, update

from rerankd.accounts import database
from rerankd.accounts.budget import month_of, next_month
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.schema import EPOCH, months
from rerankd.accounts.store import Store, open_store
from rerankd.errors import InvalidRequest, OutOfCredit, OverBudget
from rerankd.mail import Mailer
from rerankd.prices import PriceFile
from rerankd.server.credit_mails import CreditMails
from support.payers import PRICE, Clock, Payer, new_payer
from support.smtp import Received, smtp_server
from support.stores import free_what_died

NEW_YEARS_EVE = datetime(2030, 12, 31, 23, 59, tzinfo=UTC).timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock(NEW_YEARS_EVE)


@pytest.fixture
def payer(store: Store, clock: Clock) -> Payer:
    """With a budget of 100 millionths: 1,000 tokens a month."""
    payer = new_payer(store, Ledger(store.database, clock=clock))
    store.keys.set_budget(payer.caller.key_id, 100)
    return payer


def pay(payer: Payer, tokens: int) -> int:
    return payer.ledger.settle(payer.reserve(tokens)).cost


def test_months() -> None:
    last, first = datetime(2030, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    assert (month_of(last), month_of(first)) == (203012, 203101)
    assert (next_month(last), next_month(first)) == (date(2031, 1, 1), date(2031, 2, 1))


def test_a_call_that_would_pass_the_budget_is_refused_and_says_all_about_it(payer: Payer) -> None:
    assert pay(payer, 600) == 60
    running = payer.reserve(300)
    with pytest.raises(OverBudget) as raised:
        payer.reserve(101)
    assert str(raised.value) == (
        "Budget exceeded: this API key may spend 0.0001 USD a month. 0.00006 USD are spent, 0.00003 USD are "
        "reserved by running calls, and this call costs 0.000011 USD. Nothing was charged. The budget starts again on "
        "2031-01-01 at 00:00 UTC. To call before, raise it on the page Keys, or with `rerankd keys budget`."
    )
    assert (raised.value.available, raised.value.cost, raised.value.currency) == (10, 11, "USD")
    assert isinstance(raised.value, OutOfCredit)
    payer.ledger.settle(running)
    assert pay(payer, 100) == 10
    with pytest.raises(OverBudget, match="are spent, and this call costs"):
        payer.reserve(1)
    assert payer.money[1] == 0 and payer.ledger.check() == []


def test_other_keys_and_free_calls_do_not_touch_it(payer: Payer) -> None:
    assert pay(payer, 1000) == 100
    other = Payer(payer.store, payer.ledger, payer.account_id, payer.store.keys.create(payer.account_id, "other")[1])
    assert pay(other, 5000) == 500
    first = payer.store.keys.set_budget(payer.caller.key_id, 110)
    assert first.budget == 110
    assert payer.ledger.settle(payer.reserve(100, request_id="again")).cost == 10
    assert payer.reserve(100, request_id="again").is_repeat
    free = PRICE.model_copy(update={"free_tokens": 700})
    assert payer.ledger.settle(payer.reserve(700, free)).free_tokens == 700
    with pytest.raises(OverBudget):
        payer.reserve(1, free)


def test_it_starts_again_with_the_month(payer: Payer, clock: Clock) -> None:
    assert pay(payer, 900) == 90
    before = payer.reserve(100)
    clock.now += 60
    assert payer.ledger.settle(payer.reserve(800)).cost == 80
    # A call that began in the old month is charged in the new one, whose budget it has reserved.
    with pytest.raises(OverBudget, match=r"0\.00008 USD are spent, 0\.00001 USD are reserved .* on 2031-02-01"):
        payer.reserve(101)
    assert payer.ledger.settle(before).cost == 10
    assert payer.ledger.settle(payer.reserve(100)).cost == 10
    with payer.store.database.read() as connection:
        rows = connection.execute(select(months.c.month, months.c.spent).order_by(months.c.month)).all()
    assert [tuple(row) for row in rows] == [(203012, 90), (203101, 100)]


def test_it_can_be_raised_lowered_and_removed(payer: Payer) -> None:
    key_id, keys = payer.caller.key_id, payer.store.keys
    assert pay(payer, 1000) == 100
    keys.set_budget(key_id, 150)
    assert pay(payer, 500) == 50
    keys.set_budget(key_id, 20)
    with pytest.raises(OverBudget) as raised:
        payer.reserve(1)
    assert (raised.value.available, raised.value.spent, raised.value.budget) == (0, 150, 20)
    keys.set_budget(key_id, None)
    assert pay(payer, 5000) == 500


@pytest.mark.parametrize("micro", [0, -1, 10**15])
def test_an_impossible_budget_is_refused(store: Store, micro: int) -> None:
    payer = new_payer(store)
    with pytest.raises(InvalidRequest, match="budget: must be more than 0"):
        store.keys.set_budget(payer.caller.key_id, micro)
    with pytest.raises(InvalidRequest, match="budget"):
        store.keys.create(payer.account_id, "another", budget=micro)
    with pytest.raises(InvalidRequest, match="no key 999"):
        store.keys.set_budget(999, 1)
    stranger = new_payer(store)
    with pytest.raises(InvalidRequest, match="no key"):
        store.keys.set_budget(payer.caller.key_id, 1, stranger.account_id)
    assert payer.caller.budget is None


def test_a_key_knows_what_it_has_spent_in_this_month(store: Store) -> None:
    payer = new_payer(store)
    key, secret = store.keys.create(payer.account_id, "with a budget", budget=100)
    other = Payer(store, store.ledger, payer.account_id, secret)
    assert other.caller.can_pay
    assert pay(other, 1000) == 100
    assert (other.caller.budget, other.caller.spent, other.caller.can_pay) == (100, 100, False)
    listed = {one.id: (one.budget, one.spent) for one in store.keys.of_account(payer.account_id)}
    assert listed == {payer.caller.key_id: (None, 0), key.id: (100, 100)}
    assert {one.id: (one.budget, one.spent) for one in store.keys.all()} == listed


def test_many_calls_at_once_never_spend_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_S", 60)  # a busy machine may let one wait long for the others
    payer = new_payer(store)
    store.keys.set_budget(payer.caller.key_id, 100)
    start, ledgers = threading.Barrier(8), [Ledger(store.database), Ledger(store.database)]

    def call(number: int) -> int:
        start.wait()
        paid = 0
        for _ in range(6):
            try:
                ledger = ledgers[number % 2]
                one = Payer(store, ledger, payer.account_id, payer.secret)
                paid += ledger.settle(one.reserve(70)).cost
            except OverBudget:
                continue
        return paid

    with ThreadPoolExecutor(8) as threads:
        paid = sum(threads.map(call, range(8)))
    assert paid == 98  # 14 calls of 7; 48 were tried
    assert payer.caller.spent == 98 and store.ledger.check() == []


def test_a_call_whose_reservation_was_freed_does_not_pass_the_budget(store: Store) -> None:
    payer = new_payer(store)
    store.keys.set_budget(payer.caller.key_id, 100)
    lost = payer.reserve(600)
    free_what_died(store)
    assert pay(payer, 600) == 60
    with pytest.raises(OverBudget):
        payer.ledger.settle(lost)
    assert payer.caller.spent == 60


def test_check_finds_a_month_that_is_wrong(payer: Payer) -> None:
    pay(payer, 300)
    with payer.store.database.transaction() as connection:
        connection.execute(update(months).values(spent=31))
    account, key = payer.account_id, payer.caller.key_id
    assert payer.ledger.check() == [f"Account {account}, key {key}, month 203012: spending is 31, but adds up to 30."]
    with payer.store.database.transaction() as connection:
        connection.execute(months.delete())
    assert payer.ledger.check() == [f"Account {account}, key {key}, month 203012: spending is 0, but adds up to 30."]


def test_an_older_database_gets_the_months_of_its_charges(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", "rerankd.accounts:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
        connection.execute(
            text(
                "INSERT INTO accounts (id, email, name, role, created, disabled, balance, reserved) "
                "VALUES (1, 'a@example.org', 'a', 'user', 0, 0, -60, 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO keys (id, account_id, name, hash, hint, created, models) "
                "VALUES (1, 1, 'k', x'00', 'h', 0, '[]')"
            )
        )
        ends = datetime(2030, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
        balance = 0
        for number, (moment, cost) in enumerate(((ends[0], 10), (ends[0], 20), (ends[1], 30), (ends[1], 0))):
            balance -= cost
            connection.execute(
                text(
                    "INSERT INTO entries (account_id, kind, amount, balance_after, time, key_id, tokens, free_tokens, "
                    "billed_tokens, model, occurrence, idempotency_key) "
                    "VALUES (1, 'charge', :amount, :after, :time, 1, 0, 0, 0, 'm', 0, :key)"
                ),
                {
                    "amount": -cost,
                    "after": balance,
                    "time": (moment - EPOCH).total_seconds() * 1_000_000,
                    "key": bytes([number]),
                },
            )
    engine.dispose()
    store = open_store(url)
    with store.database.read() as connection:
        rows = connection.execute(select(months.c.month, months.c.spent).order_by(months.c.month)).all()
    assert [tuple(row) for row in rows] == [(203012, 30), (203101, 30)]
    assert store.ledger.check() == []
    store.database.close()


def test_an_owner_is_warned_once_when_a_budget_is_nearly_spent(store: Store) -> None:
    payer = new_payer(store)
    store.keys.set_budget(payer.caller.key_id, 100)

    def look(received: Received) -> None:
        mailer = Mailer(received.url, "rerank@example.org")
        CreditMails(store, mailer, PriceFile(None), None, "https://rerank.example").look()

    with smtp_server() as received:
        pay(payer, 790)
        look(received)
        assert received.mails == []
        pay(payer, 10)
        received.refuse.add(payer.account.email)
        look(received)
        received.refuse.clear()
        look(received)
        look(received)
        [(recipients, mail)] = received.mails
        assert recipients == [payer.account.email] and mail["subject"] == "A key has spent 80 % of its budget"
        text = mail.get_content()
        assert "may spend 0.0001 USD a month" in text and "has spent 0.00008 USD" in text
        assert "https://rerank.example/keys" in text
        store.keys.set_budget(payer.caller.key_id, 200)
        look(received)
        assert len(received.mails) == 1
        pay(payer, 1000)
        look(received)
        assert len(received.mails) == 2
