"""What was charged, summed; and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import chain, combinations

import pytest

from rerankd.accounts.decision import CallCost
from rerankd.accounts.ledger import Ledger
from rerankd.accounts.store import Store
from rerankd.accounts.usage import By, UsageRow, as_csv, largest_accounts, usage
from rerankd.errors import InvalidRequest
from rerankd.prices import MICRO, Price
from support.payers import Clock

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
BY: tuple[By, ...] = ("day", "account", "key", "model")


@pytest.fixture
def charges(store: Store) -> list[dict[str, object]]:
    """Two accounts, three keys of two names, two models, three days: what each charge was."""
    clock = Clock(0)
    ledger = Ledger(store.database, clock=clock)
    made: list[dict[str, object]] = []
    people = [store.accounts.create(email) for email in ("bob@example.org", "ann@example.org")]
    owners = [people[0], people[1], people[1]]
    keys = [store.keys.create(owner.id, name) for owner, name in zip(owners, ("=1+1", "work", "home"), strict=True)]
    prices = [Price(model="b", input_price=Decimal("0.5"), free_tokens=250), Price(model="a", input_price=Decimal(3))]
    for person in people:
        ledger.add_credits(person.id, MICRO)
    for number in range(36):
        when = NOON + timedelta(days=number % 3, seconds=number)
        clock.now = when.timestamp()
        (key, secret), owner, price = keys[number % 4 % 3], owners[number % 4 % 3], prices[number // 3 % 2]
        caller = store.keys.find(secret)
        assert caller is not None
        call = ledger.reserve(caller, price, CallCost(10 + number, str(number), b""))
        if number % 5 == 4:
            ledger.release(call)
            continue
        charge = ledger.settle(call)
        groups = {"day": when.date(), "account": owner.email, "key": f"{key.name} ({key.hint})", "model": price.model}
        sums = {name: getattr(charge, name) for name in ("tokens", "free_tokens", "billed_tokens", "cost")}
        made.append({**groups, "calls": 1, **sums})
    return made


@pytest.mark.parametrize("by", list(chain.from_iterable(combinations(BY, number) for number in range(5))), ids="-".join)
def test_charges_are_summed(store: Store, charges: list[dict[str, object]], by: Sequence[By]) -> None:
    expected: dict[tuple[object, ...], Counter[str]] = {}
    for charge in charges:
        sums = Counter({name: value for name, value in charge.items() if isinstance(value, int)})
        expected.setdefault(tuple(charge[name] for name in by), Counter()).update(sums)
    rows = usage(store.database, by)
    assert [tuple(getattr(row, name) for name in by) for row in rows] == sorted(expected)
    for row in rows:
        sums = expected[tuple(getattr(row, name) for name in by)]
        assert all(getattr(row, name) == sums[name] for name in ("calls", "tokens", "free_tokens", "cost"))
        assert row.tokens == row.free_tokens + row.billed_tokens
        assert [getattr(row, name) for name in BY if name not in by] == [None] * (4 - len(by))


def test_sorted_in_the_order_asked(store: Store, charges: list[dict[str, object]]) -> None:
    rows = usage(store.database, ["model", "day"])
    assert [(row.model, row.day) for row in rows] == sorted({(row.model, row.day) for row in rows})


def test_keys_of_one_name_are_kept_apart(store: Store, charges: list[dict[str, object]]) -> None:
    ann = store.accounts.by_email("ann@example.org")
    assert ann is not None
    rows = usage(store.database, ["key"], ann.id)
    assert [row.key_id for row in rows] == [3, 2]
    assert [str(row.key).split()[0] for row in rows] == ["home", "work"]


def test_one_account_and_a_span_of_time(store: Store, charges: list[dict[str, object]]) -> None:
    ann = store.accounts.by_email("ann@example.org")
    assert ann is not None
    rows = usage(store.database, ["day", "account"], ann.id, date(2027, 3, 2), date(2027, 3, 3))
    (row,) = rows
    assert (row.day, row.account, row.account_id) == (date(2027, 3, 2), "ann@example.org", ann.id)
    theirs = [one for one in charges if one["account"] == row.account and one["day"] == row.day]
    assert row.calls == len(theirs) > 0


def test_the_ends_of_a_span(store: Store, charges: list[dict[str, object]]) -> None:
    days = [NOON.date() + timedelta(days=number) for number in range(2)]
    of_first = [one for one in charges if one["day"] == days[0]]
    assert usage(store.database, (), since=days[0], until=days[0]) == []
    for by in BY:
        assert sum(row.calls for row in usage(store.database, [by], since=days[0], until=days[1])) == len(of_first)
        assert sum(row.calls for row in usage(store.database, [by], since=days[1])) == len(charges) - len(of_first)


def test_the_accounts_with_the_most_tokens(store: Store, charges: list[dict[str, object]]) -> None:
    tokens = Counter[str]()
    for charge in charges:
        tokens[str(charge["account"])] += int(str(charge["tokens"]))
    rows, number = largest_accounts(store.database, None, None, 10)
    assert [(row.account, row.tokens) for row in rows] == tokens.most_common() and number == 2
    assert largest_accounts(store.database, None, None, 1) == (rows[:1], 2)
    assert largest_accounts(store.database, date(2030, 1, 1), None, 10) == ([], 0)


def test_without_charges_there_are_no_rows(store: Store) -> None:
    account = store.accounts.create("ann@example.org")
    store.ledger.add_credits(account.id, 5)
    assert usage(store.database, []) == usage(store.database, ["day"]) == []
    assert as_csv([], ["day"]) == "day,calls,tokens,free_tokens,billed_tokens,cost\r\n"


def test_other_words_are_refused(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="by day, key, model, account; not by colour"):
        usage(store.database, ["colour"])  # type: ignore[list-item]


def test_csv_has_a_line_a_row_and_runs_no_formula(store: Store, charges: list[dict[str, object]]) -> None:
    rows = usage(store.database, ["key", "day"])
    lines = list(csv.DictReader(io.StringIO(as_csv(rows, ["key", "day"]))))
    assert list(lines[0]) == ["key", "day", "calls", "tokens", "free_tokens", "billed_tokens", "cost"]
    assert [line["day"] for line in lines] == [str(row.day) for row in rows]
    assert [int(Decimal(line["cost"]) * MICRO) for line in lines] == [row.cost for row in rows]
    assert {line["key"][:5] for line in lines} == {"'=1+1", "home ", "work "}


@pytest.mark.parametrize("name", ["=1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_model_name_is_no_formula_either(name: str) -> None:
    row = UsageRow(None, None, None, None, None, name, 1, 1, 0, 1, 0)
    (line,) = csv.DictReader(io.StringIO(as_csv([row], ["model"]), newline=""))
    assert line["model"] == f"'{name}"
