"""The pure decision about a call: validity, concurrency, repeats, free tokens, credit. No database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.accounts.decision import AccountState, Charge, Concurrency, Decision, decide, free_tokens_expiry
from rerankd.errors import OutOfCredit, RateLimited, WrongKey
from rerankd.prices import Price

NOW = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
RICH = AccountState(balance=1_000_000, reserved=0, created=NOW - timedelta(days=10))
PRICE = Price(model="m", input_price=Decimal("0.1"))  # 10 tokens cost a millionth
FREE = Price(model="m", input_price=Decimal("0.1"), free_tokens=1000, free_days=30)


def test_credit_pays_what_free_tokens_do_not() -> None:
    assert decide(RICH, PRICE, 105, NOW) == Decision(Charge(11, 0, 105, 105), is_repeat=False)
    assert decide(RICH, FREE, 600, NOW).charge == Charge(0, 600, 0, 600)
    partly_used = replace(RICH, free_used=300, free_reserved=500)
    assert decide(partly_used, FREE, 600, NOW).charge == Charge(40, 200, 400, 600)
    used_up = replace(RICH, free_used=1200, free_reserved=0)
    assert decide(used_up, FREE, 600, NOW).charge == Charge(60, 0, 600, 600)


def test_free_tokens_expire() -> None:
    expiry = free_tokens_expiry(FREE, RICH.created)
    assert expiry == RICH.created + timedelta(days=30)
    assert decide(RICH, FREE, 100, expiry - HOUR).charge.free_tokens == 100
    assert decide(RICH, FREE, 100, expiry).charge == Charge(10, 0, 100, 100)
    assert free_tokens_expiry(PRICE, RICH.created) is None


def test_reserved_credit_cannot_be_spent_twice() -> None:
    nearly_empty = replace(RICH, balance=100, reserved=91)
    assert decide(nearly_empty, PRICE, 90, NOW).charge.cost == 9
    with pytest.raises(OutOfCredit) as raised:
        decide(nearly_empty, PRICE, 91, NOW)
    assert (raised.value.available, raised.value.cost) == (9, 10)


def test_a_free_call_needs_no_credit() -> None:
    in_debt = replace(RICH, balance=-5)
    assert decide(in_debt, Price(model="free"), 10**6, NOW).charge.cost == 0
    assert decide(in_debt, FREE, 1000, NOW).charge.cost == 0
    assert decide(replace(in_debt, last_charged=NOW - HOUR, times_charged=1), PRICE, 1000, NOW).is_repeat


@pytest.mark.parametrize(
    ("ago", "repeats", "is_repeat"),
    [
        (HOUR, 0, True),
        (HOUR, 2, True),
        (HOUR, 3, False),
        (24 * HOUR, 0, False),
        (24 * HOUR - timedelta(microseconds=1), 0, True),
    ],
)
def test_a_repeat_is_free_three_times_in_24_hours(ago: timedelta, repeats: int, is_repeat: bool) -> None:
    state = replace(RICH, last_charged=NOW - ago, times_charged=1, repeats=repeats)
    charge = Charge(0, 0, 0, 100) if is_repeat else Charge(10, 0, 100, 100)
    assert decide(state, PRICE, 100, NOW) == Decision(charge, is_repeat)


def test_concurrency_limits_name_the_key_or_the_account() -> None:
    state = replace(RICH, key_running=2, account_running=3)
    assert decide(state, PRICE, 1, NOW, Concurrency(3, 4))
    assert decide(state, PRICE, 1, NOW)
    with pytest.raises(RateLimited, match="this API key may run 2 calls"):
        decide(state, PRICE, 1, NOW, Concurrency(2, 3))
    with pytest.raises(RateLimited, match="this account may run 3 calls"):
        decide(state, PRICE, 1, NOW, Concurrency(None, 3))


def test_an_invalid_key_is_refused_before_anything_else() -> None:
    with pytest.raises(WrongKey):
        decide(replace(RICH, key_is_valid=False, key_running=9, balance=-1), PRICE, 1, NOW, Concurrency(1, 1))


@given(
    tokens=st.integers(0, 5000),
    used=st.none() | st.integers(0, 2000),
    reserved=st.integers(0, 2000),
    available=st.integers(-10, 1000),
)
def test_an_admitted_call_never_overspends(tokens: int, used: int | None, reserved: int, available: int) -> None:
    state = replace(RICH, balance=available, free_used=used, free_reserved=None if used is None else reserved)
    left = max(0, 1000 - (state.free_used or 0) - (state.free_reserved or 0))
    try:
        charge = decide(state, FREE, tokens, NOW).charge
    except OutOfCredit:
        assert FREE.cost(tokens - min(tokens, left)) > available
        return
    assert charge.free_tokens + charge.billed_tokens == charge.tokens == tokens
    assert charge.free_tokens == min(tokens, left)
    assert charge.cost == FREE.cost(charge.billed_tokens) and (not charge.cost or charge.cost <= available)
