"""Whatever happens in whatever order: the ledger adds up, nobody overdraws, nobody pays twice."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select

from rerankd.accounts import database
from rerankd.accounts.budget import month_of
from rerankd.accounts.decision import Charge, Concurrency
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.reservation import Reservation
from rerankd.accounts.schema import entries, months
from rerankd.accounts.store import Store
from rerankd.errors import OutOfCredit, OverBudget, RateLimited
from rerankd.prices import Price
from support.payers import Clock, Payer, live, new_payer
from support.stores import free_what_died

PRICES = (
    Price(model="paid", input_price=Decimal("0.37")),
    Price(model="partly free", input_price=Decimal("0.5"), free_tokens=700, free_days=1),
    Price(model="free"),
)
DAY = 24 * 3600

# A call costs from nothing to all that an account has, and two in a row as often as not more than that.
TOKENS = st.sampled_from([1, 10, 300, 700, 1000])
CREDIT = st.sampled_from([1, 100, 400, 1500])
BUDGETS = st.sampled_from([None, 100, 300, 10**6])


class OneAccount(RuleBasedStateMachine):
    """One account in one thread, whose clock jumps; keeps books of its own."""

    store: ClassVar[Store]
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(time.time())
        self.ledger = Ledger(self.store.database, lease_s=60, clock=self.clock)
        self.balance = 600
        self.payer = new_payer(self.store, self.ledger, credit=self.balance)
        self.charged: defaultdict[str, list[float]] = defaultdict(list)  # when, by request_id
        self.repeats: defaultdict[str, list[float]] = defaultdict(list)
        self.budget: int | None = None
        self.months: Counter[int] = Counter()  # what was charged, by month

    @rule(micro=CREDIT | st.just(-100))
    def credit(self, micro: int) -> None:
        self.ledger.add_credits(self.payer.account_id, micro)
        self.balance += micro

    @rule(micro=BUDGETS)
    def set_budget(self, micro: int | None) -> None:
        self.store.keys.set_budget(self.payer.caller.key_id, micro)
        self.budget = micro

    @rule(
        target=calls,
        tokens=TOKENS,
        price=st.sampled_from(PRICES),
        request_id=st.none() | st.sampled_from("ab"),
        limit=st.none() | st.integers(2, 4),
    )
    def reserve(self, tokens: int, price: Price, request_id: str | None, limit: int | None) -> Any:
        try:
            reservation = self.payer.reserve(tokens, price, request_id, concurrency=Concurrency(limit))
        except RateLimited:
            assert limit is not None
            return multiple()
        except OverBudget as error:
            assert error.cost is not None and error.cost > error.available and error.budget == self.budget
            assert error.spent == self.months[self.month]
            return multiple()
        except OutOfCredit as error:
            assert error.cost is not None and error.cost > error.available
            return multiple()
        if self.budget is not None and reservation.charge.cost:
            assert self.months[self.month] + self.payer.money[1] <= self.budget
        charged = self.charged[reservation.call.request_id]
        repeats = [when for when in self.repeats[reservation.call.request_id] if self.clock.now - when < DAY]
        assert reservation.is_repeat == (charged != [] and self.clock.now - charged[-1] < DAY and len(repeats) < 3)
        if reservation.is_repeat:
            self.repeats[reservation.call.request_id].append(self.clock.now)
        assert reservation.charge.free_tokens + reservation.charge.billed_tokens == (
            0 if reservation.is_repeat else tokens
        )
        assert reservation.charge.cost == price.cost(reservation.charge.billed_tokens)
        balance, reserved = self.payer.money
        assert not reservation.charge.cost or balance - reserved >= 0
        return reservation, len(charged)

    @rule(call=consumes(calls), twice=st.booleans())
    def settle(self, call: tuple[Reservation, int], twice: bool) -> None:
        reservation, charged_before = call
        charged = self.charged[reservation.call.request_id]
        repeats = [when for when in self.repeats[reservation.call.request_id] if self.clock.now - when < DAY]
        expected = Charge(0, 0, 0, reservation.call.tokens)
        if not reservation.is_repeat:
            if len(charged) == charged_before or len(repeats) >= 3:  # no twin was quicker, or too many were
                charged.append(self.clock.now)
                self.balance -= reservation.charge.cost
                self.months[self.month] += reservation.charge.cost
                expected = reservation.charge
            else:
                self.repeats[reservation.call.request_id].append(self.clock.now)
        assert self.ledger.settle(reservation) == expected
        if twice:
            assert self.ledger.settle(reservation) == Charge(0, 0, 0, reservation.call.tokens)

    @rule(call=consumes(calls))
    def release(self, call: tuple[Reservation, int]) -> None:
        self.ledger.release(call[0])

    @rule(seconds=st.sampled_from([1, 30, 59, 60, 3600, DAY, 20 * DAY]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(renew=st.booleans())
    def renew_or_sweep(self, renew: bool) -> None:
        self.ledger.renew() if renew else self.ledger.sweep()

    @invariant()
    def it_adds_up(self) -> None:
        assert self.ledger.check() == []
        assert self.payer.account.balance == self.balance
        assert self.spent == {month: cost for month, cost in self.months.items() if cost}

    @property
    def month(self) -> int:
        return month_of(datetime.fromtimestamp(self.clock.now, UTC))

    @property
    def spent(self) -> dict[int, int]:
        query = select(months.c.month, months.c.spent).where(months.c.key_id == self.payer.caller.key_id)
        with self.store.database.read() as connection:
            return {row.month: row.spent for row in connection.execute(query)}

    def teardown(self) -> None:
        other = Ledger(self.store.database, clock=self.clock)
        live(other, self.clock, 130)
        other.sweep()
        assert self.payer.money == (self.balance, 0)


def test_it_adds_up_in_any_order(store: Store) -> None:
    machine = type("OneAccountHere", (OneAccount,), {"store": store})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None))


BUDGET = 250
"""Of one of the two keys that many threads use at once; its account has more."""

PAYERS = st.integers(0, 1)
OPERATIONS = st.one_of(
    st.tuples(st.just("credit"), PAYERS, CREDIT),
    st.tuples(st.just("reserve"), PAYERS, TOKENS, st.sampled_from(PRICES), st.none() | st.sampled_from("abc")),
    st.tuples(st.just("settle"), st.integers(0, 3)),
    st.tuples(st.just("release"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["renew", "sweep"])),
)


class Worker(threading.Thread):
    """Does operations beside others; keeps what it was told."""

    def __init__(self, payers: list[Payer], operations: list[Any], start: threading.Barrier) -> None:
        super().__init__()
        self._payers, self._operations, self._start = payers, operations, start
        self.ledger = payers[0].ledger
        self.credit = Counter[int]()
        self.charges: list[tuple[Reservation, Charge]] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        self._start.wait()
        try:
            self._work()
        except Exception as failure:
            self.failure = failure

    def _work(self) -> None:
        calls: list[Reservation] = []
        for name, *arguments in self._operations:
            match name, arguments:
                case "credit", [payer, micro]:
                    self.ledger.add_credits(self._payers[payer].account_id, micro)
                    self.credit[self._payers[payer].account_id] += micro
                case "reserve", [payer, tokens, price, request_id]:
                    try:
                        calls.append(self._payers[payer].reserve(tokens, price, request_id))
                    except OutOfCredit:
                        continue
                case "settle", [index] if index < len(calls):
                    reservation = calls.pop(index)
                    try:
                        self.charges.append((reservation, self.ledger.settle(reservation)))
                    except OutOfCredit:  # another process freed what it had reserved
                        self.ledger.release(reservation)
                case "release", [index] if index < len(calls):
                    self.ledger.release(calls.pop(index))
                case "renew", _:
                    self.ledger.renew()
                case "sweep", _:
                    self.ledger.sweep()


@pytest.mark.parametrize("lease_s", [60, 0.002])
def test_it_adds_up_when_many_write_at_once(store: Store, lease_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ANSWER_S", 60)  # a busy machine may let one wait long for the others

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.lists(OPERATIONS, min_size=4, max_size=12), min_size=4, max_size=4))
    def check(parts: list[list[Any]]) -> None:
        payers = [new_payer(store, credit=400) for _ in range(2)]
        store.keys.set_budget(payers[0].caller.key_id, BUDGET)
        start = threading.Barrier(len(parts))
        ledgers = [Ledger(store.database, lease_s), Ledger(store.database, lease_s)]  # two processes, of two threads
        workers = [
            Worker([Payer(store, ledgers[number % 2], one.account_id, one.secret) for one in payers], part, start)
            for number, part in enumerate(parts)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.failure for worker in workers] == [None] * len(workers)
        assert store.ledger.check() == []
        free_what_died(store)
        assert store.ledger.check() == []
        assert spent(store, payers[0]) <= BUDGET
        for payer in payers:
            charges = [
                (reservation.call.request_id, charge)
                for worker in workers
                for reservation, charge in worker.charges
                if reservation.caller.account_id == payer.account_id
            ]
            credit = 400 + sum(worker.credit[payer.account_id] for worker in workers)
            assert payer.money == (credit - sum(charge.cost for _, charge in charges), 0)
            paid = Counter(request_id for request_id, charge in charges if charge.free_tokens + charge.billed_tokens)
            asked = Counter(request_id for request_id, _ in charges)
            assert all(count == max(1, asked[request_id] - 3) for request_id, count in paid.items())
            assert paid.keys() == {request_id for request_id, _ in charges}
            assert lowest_balance(store, payer) >= 0

    check()


def spent(store: Store, payer: Payer) -> int:
    query = select(func.coalesce(func.sum(months.c.spent), 0)).where(months.c.key_id == payer.caller.key_id)
    with store.database.read() as connection:
        return int(connection.scalar(query) or 0)


def lowest_balance(store: Store, payer: Payer) -> int:
    query = select(func.min(entries.c.balance_after)).where(entries.c.account_id == payer.account_id)
    with store.database.read() as connection:
        return int(connection.scalar(query) or 0)
