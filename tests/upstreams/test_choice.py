"""Which upstream is asked, and how many retries there are, with a clock and a chance of the test's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankd.upstreams.budget import AT_MOST, RetryBudget
from rerankd.upstreams.choice import Candidate, choose

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.text(min_size=1, max_size=8),
        tier=st.integers(0, 3),
        weight=st.floats(0.01, 100),
        outstanding=st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
)


@given(CANDIDATES, st.binary(max_size=16), st.floats(0, 0.999999))
def test_the_chosen_one_is_of_the_lowest_tier_and_not_the_busiest(
    candidates: list[Candidate], key: bytes, chance: float
) -> None:
    chosen = choose(candidates, key, lambda: chance)
    lowest = [one for one in candidates if one.tier == min(each.tier for each in candidates)]
    assert chosen in lowest
    busier = [
        one
        for one in lowest
        if one is not chosen and one.outstanding / one.weight >= chosen.outstanding / chosen.weight
    ]
    assert busier or len(lowest) == 1


@given(CANDIDATES, st.binary(max_size=16), st.randoms())
def test_an_idle_tier_answers_one_query_at_one_place(
    candidates: list[Candidate], key: bytes, chance: random.Random
) -> None:
    idle = [Candidate(one.name, 0, one.weight, 0) for one in candidates]
    assert len({choose(idle, key, chance.random).name for _ in range(5)}) == 1
    shuffled = random.Random(1).sample(idle, len(idle))
    assert choose(shuffled, key, chance.random).name == choose(idle, key, chance.random).name


def shares_of(weights: dict[str, float], outstanding: Callable[[str], int] = lambda name: 0) -> dict[str, float]:
    chance, counts = random.Random(3), Counter[str]()
    candidates = [Candidate(name, 0, weight, outstanding(name)) for name, weight in weights.items()]
    for number in range(20_000):
        counts[choose(candidates, str(number).encode(), chance.random).name] += 1
    return {name: counts[name] / 20_000 for name in weights}


def test_queries_are_shared_out_by_weight_fractions_included() -> None:
    shares = shares_of({"a": 4, "b": 1, "c": 0.25})
    assert shares == pytest.approx({"a": 4 / 5.25, "b": 1 / 5.25, "c": 0.25 / 5.25}, abs=0.01)


def test_adding_one_moves_only_its_own_share_of_the_queries() -> None:
    before = [Candidate(name, 0, 1, 0) for name in "abc"]
    after = [*before, Candidate("d", 0, 1, 0)]
    moved = 0
    for number in range(5_000):
        key = str(number).encode()
        old, new = choose(before, key, lambda: 0.5), choose(after, key, lambda: 0.5)
        assert new.name in (old.name, "d")
        moved += new.name == "d"
    assert moved / 5_000 == pytest.approx(1 / 4, abs=0.02)


def test_work_in_a_closed_loop_goes_by_weight() -> None:
    """Each works at the speed of its weight: so much of the tokens it gets."""
    weights, chance = {"big": 3.0, "small": 1.0}, random.Random(5)
    left, done = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0)
    for number in range(20_000):
        tokens = chance.choice((100, 1_000, 10_000))
        candidates = [Candidate(name, 0, weight, int(left[name])) for name, weight in weights.items()]
        name = choose(candidates, str(number).encode(), chance.random).name
        left[name] += tokens
        done[name] += tokens
        for other, weight in weights.items():
            left[other] = max(0.0, left[other] - 3_700 / 4 * weight)
    assert done["big"] / sum(done.values()) == pytest.approx(0.75, abs=0.03)


@given(st.lists(st.booleans(), max_size=2_000))
def test_retries_are_a_fifth_of_the_calls_and_three(calls: list[bool]) -> None:
    budget, num_calls, num_retries = RetryBudget(0), 0, 0
    for is_call in calls:
        if is_call:
            budget.add_call()
            num_calls += 1
        else:
            num_retries += budget.take(0)
        assert num_retries <= 0.2 * num_calls + 3 + 1e-9


def test_three_retries_come_back_after_a_pause() -> None:
    budget = RetryBudget(0)
    assert [budget.take(0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(11), budget.take(11)] == [True, False]
    assert [budget.take(1_000) for _ in range(4)] == [True, True, True, False]


def test_good_calls_save_up_a_bounded_number() -> None:
    budget = RetryBudget(0)
    for _ in range(100_000):
        budget.add_call()
    assert sum(budget.take(0) for _ in range(100_000)) == AT_MOST
