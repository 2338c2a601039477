"""Reserving, settling, releasing: examples. test_ledger_adds_up.py has the properties."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Connection, insert, select, text

from rerankd.accounts.decision import CallCost, Charge, Concurrency
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.schema import EPOCH, accounts, entries, reservations
from rerankd.accounts.store import Store, open_store
from rerankd.errors import InvalidRequest, OutOfCredit, RateLimited, Unavailable
from rerankd.prices import MICRO, Price
from support.payers import PRICE, Clock, Payer, live, new_payer
from support.stores import free_what_died

FREE = Price(model="qwen3-rerank", input_price=Decimal("0.1"), free_tokens=1000, free_days=90)
DAY = 24 * 3600


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def payer(store: Store, clock: Clock) -> Payer:
    return new_payer(store, Ledger(store.database, lease_s=60, clock=clock))


def test_a_call_reserves_what_it_costs_then_pays_it(payer: Payer) -> None:
    reservation = payer.reserve(2_000_005)
    assert payer.money == (MICRO, 200_001)
    assert payer.caller.available == MICRO - 200_001
    assert payer.ledger.settle(reservation) == Charge(200_001, 0, 2_000_005, 2_000_005)
    assert payer.money == (MICRO - 200_001, 0)
    assert payer.ledger.check() == []


@pytest.mark.parametrize("free", [0, 120, 1000])
def test_a_call_that_was_computed_in_part_pays_that_part(free: int, payer: Payer) -> None:
    price = FREE.model_copy(update={"free_tokens": free})
    charge = payer.ledger.settle(payer.reserve(500, price), 200)
    billed = max(0, 200 - free)
    assert charge == Charge(billed // 10, 200 - billed, billed, 200)
    assert payer.money == (MICRO - billed // 10, 0)
    assert payer.ledger.quota(payer.account_id, price).used == 200 - billed
    assert payer.ledger.settle(payer.reserve(500), 500).tokens == 500
    assert payer.ledger.check() == []


def test_an_entry_says_everything_about_its_charge(payer: Payer, clock: Clock) -> None:
    payer.ledger.settle(payer.reserve(300, request_id="r-1", dialect="cohere"))
    with payer.store.database.read() as connection:
        credit, charge = connection.execute(select(entries).order_by(entries.c.id)).mappings().all()
    assert (credit["kind"], credit["amount"], credit["balance_after"]) == ("credit", MICRO, MICRO)
    shown = {name: value for name, value in charge.items() if name not in ("id", "idempotency_key")}
    assert shown == {
        "account_id": payer.account_id,
        "kind": "charge",
        "amount": -30,
        "balance_after": MICRO - 30,
        "time": EPOCH + timedelta(seconds=clock.now),
        "note": None,
        "made_by": None,
        "key_id": payer.caller.key_id,
        "model": "qwen3-rerank",
        "dialect": "cohere",
        "request_id": "r-1",
        "tokens": 300,
        "free_tokens": 0,
        "billed_tokens": 300,
        "price": "0.1",
        "currency": "USD",
        "occurrence": 0,
    }


def test_a_call_that_failed_costs_nothing(payer: Payer) -> None:
    reservation = payer.reserve(1500, FREE)
    assert payer.money == (MICRO, 50)
    payer.ledger.release(reservation)
    payer.ledger.release(reservation)
    assert payer.money == (MICRO, 0)
    assert payer.ledger.quota(payer.account_id, FREE).left == 1000
    assert payer.ledger.check() == []


def test_free_tokens_go_first(payer: Payer) -> None:
    charges = [payer.ledger.settle(payer.reserve(600, FREE)) for _ in range(3)]
    assert charges == [Charge(0, 600, 0, 600), Charge(20, 400, 200, 600), Charge(60, 0, 600, 600)]
    quota = payer.ledger.quota(payer.account_id, FREE)
    assert (quota.granted, quota.used, quota.left) == (1000, 1000, 0)
    assert quota.expires == payer.account.created + timedelta(days=90)


def test_a_running_call_keeps_its_free_tokens(payer: Payer) -> None:
    first = payer.reserve(700, FREE)
    assert payer.ledger.quota(payer.account_id, FREE).left == 300
    assert payer.ledger.settle(payer.reserve(700, FREE)).free_tokens == 300
    assert payer.ledger.settle(first).free_tokens == 700


def test_each_model_has_its_own_free_tokens_and_they_follow_the_price_list(payer: Payer) -> None:
    payer.ledger.settle(payer.reserve(900, FREE))
    other = FREE.model_copy(update={"model": "other"})
    assert payer.ledger.quota(payer.account_id, other).left == 1000
    more = FREE.model_copy(update={"free_tokens": 2000})
    assert payer.ledger.quota(payer.account_id, more).left == 1100
    fewer = FREE.model_copy(update={"free_tokens": 500})
    assert payer.ledger.quota(payer.account_id, fewer).left == 0
    assert payer.ledger.settle(payer.reserve(100, fewer)).free_tokens == 0


def test_free_tokens_end_with_their_days(payer: Payer, clock: Clock) -> None:
    endless = FREE.model_copy(update={"free_days": None})
    clock.now += 91 * DAY
    assert payer.ledger.quota(payer.account_id, FREE).left == 0
    assert payer.ledger.settle(payer.reserve(100, FREE)) == Charge(10, 0, 100, 100)
    assert payer.ledger.quota(payer.account_id, endless).expires is None
    assert payer.ledger.settle(payer.reserve(100, endless)) == Charge(0, 100, 0, 100)


def test_what_cannot_be_paid_is_refused_and_leaves_nothing(payer: Payer) -> None:
    held = payer.reserve(9_000_000)
    with pytest.raises(OutOfCredit) as raised:
        payer.reserve(1_000_001)
    assert (raised.value.available, raised.value.cost, raised.value.currency) == (100_000, 100_001, "USD")
    assert payer.money == (MICRO, 900_000)
    payer.ledger.settle(payer.reserve(1_000_000))
    payer.ledger.settle(held)
    assert payer.money == (0, 0)
    assert payer.ledger.check() == []


def test_free_tokens_and_free_models_need_no_credit(store: Store) -> None:
    poor = new_payer(store, credit=0)
    store.ledger.add_credits(poor.account_id, -5)
    assert store.ledger.settle(poor.reserve(1000, FREE)).free_tokens == 1000
    assert store.ledger.settle(poor.reserve(50, Price(model="free"))) == Charge(0, 0, 50, 50)
    with pytest.raises(OutOfCredit):
        poor.reserve(1, FREE)


def test_settling_twice_charges_once(payer: Payer) -> None:
    reservation = payer.reserve(1500, FREE)
    payer.ledger.settle(reservation)
    assert payer.ledger.settle(reservation) == Charge(0, 0, 0, 1500)
    payer.ledger.release(reservation)
    assert payer.money == (MICRO - 50, 0)
    assert payer.ledger.check() == []


def test_a_retry_within_a_day_is_not_charged_again(payer: Payer, clock: Clock) -> None:
    first = payer.ledger.settle(payer.reserve(1500, FREE, "r-1"))
    clock.now += DAY - 1
    again = payer.reserve(1500, FREE, "r-1")
    assert (again.charge.cost, again.charge.free_tokens) == (0, 0)
    assert payer.ledger.settle(again) == Charge(0, 0, 0, 1500)
    clock.now += 1
    later = [payer.ledger.settle(payer.reserve(1500, FREE, "r-1")) for _ in range(2)]
    assert (first.cost, later[0].cost, later[1].cost) == (50, 150, 0)
    assert payer.ledger.check() == []


def test_three_repeats_in_a_day_are_free(payer: Payer, clock: Clock) -> None:
    def costs(number: int) -> list[int]:
        return [payer.ledger.settle(payer.reserve(100, request_id="r-1")).cost for _ in range(number)]

    assert costs(6) == [10, 0, 0, 0, 10, 10]
    clock.now += DAY
    payer.ledger.sweep()  # forgets the old ones
    assert costs(6) == [10, 0, 0, 0, 10, 10]
    assert payer.ledger.check() == []


def test_a_repeat_counts_though_it_failed(payer: Payer) -> None:
    payer.ledger.settle(payer.reserve(100, request_id="r-1"))
    for _ in range(3):
        payer.ledger.release(payer.reserve(100, request_id="r-1"))
    assert payer.reserve(100, request_id="r-1").charge.cost == 10


def test_of_many_twins_that_run_together_every_one_but_three_pays(payer: Payer) -> None:
    twins = [payer.reserve(100, request_id="r-1") for _ in range(6)]
    assert [payer.ledger.settle(twin).cost for twin in twins] == [10, 0, 0, 0, 10, 10]
    assert payer.ledger.settle(payer.reserve(100, request_id="r-1")).cost == 10
    assert payer.ledger.check() == []


def test_a_retry_needs_no_credit(store: Store) -> None:
    payer = new_payer(store, credit=100)
    store.ledger.settle(payer.reserve(1000, request_id="r-1"))
    assert store.ledger.settle(payer.reserve(1000, request_id="r-1")).cost == 0


def test_only_the_same_call_of_the_same_account_is_a_retry(payer: Payer) -> None:
    other = new_payer(payer.store, payer.ledger)
    payer.ledger.settle(payer.reserve(10, request_id="r-1", fingerprint=b"ab"))
    calls = [
        payer.reserve(10, request_id="r-1", fingerprint=b"other"),
        payer.reserve(10, request_id="r-2", fingerprint=b"ab"),
        payer.reserve(10, request_id="r-1a", fingerprint=b"b"),
        other.reserve(10, request_id="r-1", fingerprint=b"ab"),
    ]
    assert [payer.ledger.settle(call).cost for call in calls] == [1] * 4


def test_of_twins_that_run_together_one_pays(payer: Payer) -> None:
    twins = [payer.reserve(1500, FREE, "r-1") for _ in range(2)]
    assert payer.ledger.quota(payer.account_id, FREE).left == 0
    assert [payer.ledger.settle(twin).tokens for twin in twins] == [1500, 1500]
    assert payer.money == (MICRO - 50, 0)
    assert payer.ledger.quota(payer.account_id, FREE).used == 1000
    assert payer.ledger.check() == []


def test_odd_request_ids_are_stored(payer: Payer) -> None:
    payer.ledger.settle(payer.reserve(10, request_id="a\0b\ud800"))
    with payer.store.database.read() as connection:
        stored = connection.scalar(select(entries.c.request_id).where(entries.c.kind == "charge"))
    assert stored == "a\N{REPLACEMENT CHARACTER}b?"


def test_only_so_many_calls_run_at_a_time(payer: Payer) -> None:
    second_key = payer.store.keys.find(payer.store.keys.create(payer.account_id, "second")[1])
    assert second_key is not None
    limit = Concurrency(key=2, account=3)
    running = [payer.reserve(10, concurrency=limit) for _ in range(2)]
    with pytest.raises(RateLimited, match="this API key may run 2 calls") as raised:
        payer.reserve(10, concurrency=limit)
    assert raised.value.kind == "concurrency"
    assert raised.value.retry_after_s >= 1
    call = CallCost(10, "r", b"")
    running.append(payer.ledger.reserve(second_key, PRICE, call, limit))
    with pytest.raises(RateLimited, match="this account may run 3 calls"):
        payer.ledger.reserve(second_key, PRICE, call, limit)
    payer.ledger.release(running[0])
    running.append(payer.reserve(10, concurrency=limit))
    payer.ledger.settle(running[1])
    payer.reserve(10, concurrency=limit)
    assert payer.money == (MICRO - 1, 3)


@pytest.fixture
def dead(payer: Payer, clock: Clock) -> Payer:
    """The same account, as another process charges it that renews nothing."""
    return replace(payer, ledger=Ledger(payer.store.database, clock=clock))


def test_what_nobody_renews_expires(payer: Payer, dead: Payer, clock: Clock) -> None:
    live(payer.ledger, clock, 60)
    dead.reserve(1500, FREE, concurrency=Concurrency(1))
    live(payer.ledger, clock, 59)
    with pytest.raises(RateLimited):
        payer.reserve(1500, FREE, concurrency=Concurrency(1))
    clock.now += 1
    assert payer.ledger.settle(payer.reserve(1500, FREE, concurrency=Concurrency(1))) == Charge(50, 1000, 500, 1500)
    assert payer.money == (MICRO - 50, 0)
    assert payer.ledger.check() == []


def test_what_expired_can_be_spent_at_once(payer: Payer, dead: Payer, clock: Clock) -> None:
    dead.reserve(9_000_000)
    live(payer.ledger, clock, 60)
    payer.reserve(10_000_000)
    assert payer.money == (MICRO, MICRO)


@pytest.mark.parametrize("seconds", [61, 600, DAY])
def test_a_process_never_frees_what_its_own_running_calls_hold(payer: Payer, clock: Clock, seconds: int) -> None:
    """However long the database could not be written."""
    slow = payer.reserve(9_000_000)
    clock.now += seconds
    for _ in range(2):
        with pytest.raises(OutOfCredit):
            payer.reserve(9_000_000)
        payer.ledger.sweep()
        live(payer.ledger, clock, 120)
    assert payer.ledger.settle(slow).cost == 900_000
    assert payer.money == (MICRO - 900_000, 0)


def test_after_an_outage_nobody_frees_what_others_could_not_renew(payer: Payer, dead: Payer, clock: Clock) -> None:
    alive = dead
    slow = alive.reserve(9_000_000)
    live(payer.ledger, clock, 60)
    alive.ledger.renew()
    clock.now += 300  # the database cannot be written
    payer.ledger.renew()  # and this process is the first to notice that it can
    with pytest.raises(OutOfCredit):
        payer.reserve(9_000_000)
    payer.ledger.sweep()
    alive.ledger.renew()
    live(payer.ledger, clock, 55)
    with pytest.raises(OutOfCredit):
        payer.reserve(9_000_000)
    assert alive.ledger.settle(slow).cost == 900_000
    assert payer.money == (MICRO - 900_000, 0)


def test_a_clock_that_jumps_frees_nothing(payer: Payer, dead: Payer, clock: Clock) -> None:
    dead.reserve(9_000_000)
    live(payer.ledger, clock, 60)
    for jump in (3600, -7200):
        clock.now += jump
        payer.ledger.sweep()
        with pytest.raises(OutOfCredit):
            payer.reserve(9_000_000)


def test_what_could_not_be_released_is_freed_later(payer: Payer) -> None:
    call, running = payer.reserve(1000), payer.reserve(500)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(payer.ledger, "_database", Broken())
        payer.ledger.release(call)
    payer.ledger.renew()
    payer.ledger.sweep()
    assert payer.money == (MICRO, 50), "the other one runs"
    payer.ledger.release(running)


class Broken:
    """A database that does not answer."""

    def transaction(self) -> object:
        raise Unavailable("Not now.", 5)


def test_a_reservation_that_was_made_when_the_connection_broke_is_freed(
    payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was committed, and nobody was told: so no call runs for it."""
    whole = payer.store.database.transaction

    @contextmanager
    def broken() -> Iterator[Connection]:
        with whole() as connection:
            yield connection
        raise Unavailable("Not now.", 5)

    monkeypatch.setattr(payer.store.database, "transaction", broken)
    with pytest.raises(Unavailable):
        payer.reserve(1000)
    monkeypatch.undo()
    assert payer.money == (MICRO, 100)
    payer.ledger.renew()
    payer.ledger.sweep()
    assert payer.money == (MICRO, 0)


def test_freeing_never_waits_for_renewing(new_postgres: Callable[[], str], clock: Clock) -> None:
    store = open_store(f"{new_postgres()}?options=-clock_timeout%3D5s")  # waiting ends in an error
    payer = new_payer(store, Ledger(store.database, clock=clock))
    replace(payer, ledger=Ledger(store.database, clock=clock)).reserve(100)
    live(payer.ledger, clock, 60)
    with store.database.transaction() as renewing:
        renewing.execute(reservations.update().values(expires=EPOCH))
        payer.reserve(100)
        payer.ledger.sweep()
        assert payer.money == (MICRO, 20)
    payer.ledger.sweep()
    assert payer.money == (MICRO, 10)
    assert payer.ledger.check() == []
    store.database.close()


def test_a_process_renews_its_own_calls_only(payer: Payer, clock: Clock) -> None:
    mine = payer.reserve(1000)
    gone = new_payer(payer.store, Ledger(payer.store.database, clock=clock))
    gone.reserve(1000)
    live(payer.ledger, clock, 80)
    payer.ledger.sweep()
    assert (payer.money, gone.money) == ((MICRO, 100), (MICRO, 0))
    assert payer.ledger.settle(mine).cost == 100
    assert payer.ledger.check() == []


def test_a_call_that_outlived_its_reservation_is_charged_what_is_left(payer: Payer, dead: Payer, clock: Clock) -> None:
    slow = dead.reserve(1500, FREE)  # its process stood still
    live(payer.ledger, clock, 80)
    payer.ledger.sweep()
    assert payer.money == (MICRO, 0)
    other = payer.reserve(800, FREE)
    dead.ledger.release(slow)
    assert payer.ledger.quota(payer.account_id, FREE).left == 200
    assert dead.ledger.settle(slow) == Charge(130, 200, 1300, 1500), "the free tokens were given away"
    assert dead.ledger.settle(slow) == Charge(0, 0, 0, 1500)
    payer.ledger.settle(other)
    assert payer.money == (MICRO - 130, 0)
    assert payer.ledger.check() == []


def test_no_balance_falls_below_what_there_is(payer: Payer, dead: Payer, clock: Clock) -> None:
    slow = dead.reserve(9_000_000)
    live(payer.ledger, clock, 80)
    payer.ledger.sweep()
    quick = payer.reserve(9_000_000)
    with pytest.raises(OutOfCredit):
        dead.ledger.settle(slow)
    assert payer.ledger.settle(quick).cost == 900_000
    assert payer.money == (MICRO - 900_000, 0)
    assert payer.ledger.check() == []


def test_a_killed_process_leaves_nothing_but_reservations_that_expire(store: Store, database_url: str) -> None:
    payer = new_payer(store)
    code = f"""
from rerankd.accounts.decision import CallCost
from rerankd.accounts.store import open_store
from rerankd.prices import Price
store = open_store({database_url!r})
caller = store.keys.find({payer.secret!r})
price = Price(model="m", input_price="0.1", free_tokens=2000)
for number in range(10**6):
    one, two = (store.ledger.reserve(caller, price, CallCost(10, f"{{number}}-{{n}}", b"")) for n in "ab")
    store.ledger.settle(one)
    if number % 2:
        store.ledger.release(two)
    if number == 20:
        print(flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert store.ledger.check() == []
    balance, reserved = payer.money
    assert 0 <= balance - reserved
    free_what_died(store)
    assert payer.money == (balance, 0)
    assert store.ledger.check() == []


def test_a_key_remembers_its_last_use_to_the_minute(payer: Payer, clock: Clock) -> None:
    def last_used() -> object:
        return payer.store.keys.of_account(payer.account_id)[0].last_used

    assert last_used() is None
    for seconds, expected in ((0, 0), (59, 0), (60, 60)):
        start = clock.now
        clock.now += seconds
        payer.ledger.settle(payer.reserve(10))
        assert last_used() == EPOCH + timedelta(seconds=start + expected)
        clock.now = start


def test_credit_is_added_and_corrected(payer: Payer) -> None:
    admin = payer.store.accounts.create("admin@example.org", role="admin")
    credit = payer.ledger.add_credits(payer.account_id, -MICRO - 7, "a slip", admin.id)
    assert (credit.amount, credit.balance_after, credit.note, credit.by) == (-MICRO - 7, -7, "a slip", admin.id)
    assert payer.money == (-7, 0)
    assert payer.ledger.check() == []


@pytest.mark.parametrize("micro", [0, 10**15, -(10**15)])
def test_odd_amounts_of_credit_are_refused(payer: Payer, micro: int) -> None:
    with pytest.raises(InvalidRequest):
        payer.ledger.add_credits(payer.account_id, micro)
    assert payer.money == (MICRO, 0)


def test_an_unknown_account_has_neither_credit_nor_quota(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="no account 99"):
        store.ledger.add_credits(99, 5)
    with pytest.raises(InvalidRequest, match="no account 99"):
        store.ledger.quota(99, FREE)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE accounts SET balance = balance + 1", "Account 1: balance is 999951, but adds up to 999950"),
        ("UPDATE accounts SET reserved = reserved + 1", "reserved credit is 151, but adds up to 150"),
        ("UPDATE quotas SET used = used - 1", "Account 1, qwen3-rerank: free tokens used is 999, but adds up to 1000"),
        ("UPDATE quotas SET reserved = 1", "free tokens reserved is 1, but adds up to 0"),
        ("DELETE FROM quotas", "free tokens used is 0, but adds up to 1000"),
        ("DELETE FROM reservations", "reserved credit is 150, but adds up to 0"),
        ("UPDATE daily_charges SET tokens = tokens + 1", ": tokens of the day is 1501, but adds up to 1500"),
        ("UPDATE daily_charge_totals SET cost = 0", ": cost of the day is 0, but adds up to 50"),
    ],
)
def test_check_finds_what_does_not_add_up(payer: Payer, change: str, found: str) -> None:
    payer.ledger.settle(payer.reserve(1500, FREE))
    payer.reserve(1500, FREE)
    assert payer.ledger.check() == []
    with payer.store.database.transaction() as connection:
        connection.execute(text(change))
    (wrong,) = payer.ledger.check()
    assert found in wrong


def test_check_finds_a_forged_entry(payer: Payer, clock: Clock) -> None:
    forged = {"account_id": payer.account_id, "kind": "credit", "amount": 5, "balance_after": 7}
    with payer.store.database.transaction() as connection:
        connection.execute(insert(entries), {**forged, "time": EPOCH})
        connection.execute(accounts.update().values(balance=MICRO + 5))
    (wrong,) = payer.ledger.check()
    assert "Entry 2: balance_after is 7, but adds up to 1000005" in wrong
