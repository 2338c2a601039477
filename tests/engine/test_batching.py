"""next_batch: every prompt once, in its request's order, within the budget, and nobody waits for a longer request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rerankd.engine.batching import FAIR_TURN, RECENT_BATCHES, Batches, Waiting, next_batch

SIZES = st.lists(st.integers(1, 50), max_size=12)


def choose(requests: Sequence[tuple[int, int, list[int]]], turn: int, max_tokens: int) -> list[int]:
    """`next_batch` of (priority, served, costs)."""
    waiting = [Waiting(priority, served, sum(costs), costs) for priority, served, costs in requests]
    return next_batch(waiting, turn, max_tokens)


def run(requests: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Runs all batches; for each, how many prompts of each request were in it."""
    served, taken = [0] * len(requests), [0] * len(requests)
    batches: list[list[int]] = []
    while any(count < len(sizes) for count, sizes in zip(taken, requests, strict=True)):
        waiting = [(0, served[i], sizes[taken[i] :]) for i, sizes in enumerate(requests)]
        counts = choose(waiting, len(batches), max_tokens)
        for i, count in enumerate(counts):
            served[i] += sum(requests[i][taken[i] : taken[i] + count])
            taken[i] += count
        batches.append(counts)
        assert any(counts), "no progress"
    return batches


@given(requests=st.lists(SIZES, max_size=6), max_tokens=st.integers(0, 120))
@example(requests=[[100, 1]], max_tokens=60)
@example(requests=[[30, 30, 1], [50]], max_tokens=60)
def test_each_prompt_runs_once_within_the_budget(requests: list[list[int]], max_tokens: int) -> None:
    taken = [0] * len(requests)
    for counts in run(requests, max_tokens):
        parts = [sizes[t : t + count] for sizes, t, count in zip(requests, taken, counts, strict=True)]
        taken = [t + count for t, count in zip(taken, counts, strict=True)]
        assert sum(map(sum, parts)) <= max_tokens or sum(counts) == 1
    assert taken == [len(sizes) for sizes in requests]


@given(
    requests=st.lists(st.tuples(st.integers(0, 500), SIZES.filter(bool)), min_size=1, max_size=6),
    max_tokens=st.integers(1, 400),
)
def test_who_was_served_least_gets_on_every_fair_turn(requests: list[tuple[int, list[int]]], max_tokens: int) -> None:
    counts = choose([(0, served, sizes) for served, sizes in requests], FAIR_TURN, max_tokens)
    least = min(range(len(requests)), key=lambda i: (requests[i][0], i))
    assert counts[least] >= 1


@given(requests=st.lists(SIZES.filter(bool), min_size=1, max_size=6), max_tokens=st.integers(1, 400))
def test_else_who_has_the_least_left_gets_on(requests: list[list[int]], max_tokens: int) -> None:
    counts = choose([(0, 100 - i, sizes) for i, sizes in enumerate(requests)], 1, max_tokens)
    shortest = min(range(len(requests)), key=lambda i: (sum(requests[i]), i))
    assert counts[shortest] >= 1


def test_a_stream_of_short_requests_does_not_starve_a_long_one() -> None:
    served, left = 0, [10] * 100
    for turn in range(100 * FAIR_TURN):
        shorts = [(0, served, [10, 10])] * 8
        count = choose([(0, served, left), *shorts], turn, 80)[0]
        served, left = served + 10 * count, left[count:]
        if not left:
            return
    raise AssertionError("it is still waiting")


def test_a_short_request_passes_a_long_one_and_is_not_held_up_by_what_would_fill_its_batch() -> None:
    long, short = [10] * 1000, [10, 10]
    assert choose([(0, 0, long), (0, 5000, short)], 1, 40) == [0, 2]
    assert choose([(0, 0, long), (0, 5000, short)], 1, 90) == [1, 2], "until a third of it is full"


def test_a_batch_of_several_is_a_third_full_or_completes_a_request() -> None:
    other = (0, 0, [50, 50])
    assert choose([(0, 7, [10, 20, 30, 5]), other], 1, 60) == [2, 0]
    assert choose([(0, 7, [10, 20, 30]), other], 1, 60) == [3, 0]
    assert choose([(0, 0, [90, 1]), other], 1, 60) == [1, 0]


def test_alone_a_request_fills_its_batches() -> None:
    assert choose([(0, 7, [10, 20, 30, 5]), (0, 0, [])], 1, 60) == [3, 0]
    assert choose([(0, 0, [100, 1])], 1, 60) == [1]


@pytest.mark.parametrize(("held", "small"), [(0, 6), (500, 3)], ids=["short", "long"])
def test_a_request_that_is_alone_has_full_batches_unless_others_waited_lately(held: int, small: int) -> None:
    alone = Waiting(0, 0, 10_000, [10] * 1000, held)
    batches = Batches()
    assert batches.choose([alone], 180) == [18]
    batches.choose([alone, Waiting(0, 0, 10, [10])], 180)
    assert [batches.choose([alone], 180) for _ in range(RECENT_BATCHES)] == [[small]] * (RECENT_BATCHES - 1) + [[18]]


def test_nothing_waiting_makes_no_batch() -> None:
    assert choose([], 1, 10) == []
    assert choose([(0, 3, [])], 1, 10) == [0]


def test_a_lower_priority_goes_first_however_much_it_was_served() -> None:
    urgent, ordinary = (-1, 9000, [20, 20]), (0, 0, [10, 10])
    assert choose([ordinary, urgent], 1, 40) == [0, 2]
    assert choose([ordinary, urgent], 1, 150) == [2, 2]


@given(
    others=st.lists(st.tuples(st.integers(-5, 5), SIZES.filter(bool)), min_size=1, max_size=5),
    mine=SIZES.filter(bool),
    max_tokens=st.integers(20, 200),
)
def test_no_priority_of_others_starves_a_request(
    others: list[tuple[int, list[int]]], mine: list[int], max_tokens: int
) -> None:
    """Whoever is done is replaced by another that is as urgent and as short, for ever."""
    served = 0
    jobs = [(priority, 0, list(sizes)) for priority, sizes in others]
    left, turn = list(mine), 0
    while left:
        turn += 1
        assert turn <= FAIR_TURN * (len(others) + 1) * (len(mine) + 1), "it is still waiting"
        count, *counts = choose([(6, served, left), *jobs], turn, max_tokens)
        served, left = served + sum(left[:count]), left[count:]
        for index, (taken, (priority, sizes)) in enumerate(zip(counts, others, strict=True)):
            done, rest = sum(jobs[index][2][:taken]), jobs[index][2][taken:]
            jobs[index] = (priority, jobs[index][1] + done, rest) if rest else (priority, served, list(sizes))


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([[40, 40, 40], [40]], 3),  # 120 of 100 tokens complete the document
        ([[40, 40, 46], [40]], 2),  # 126 are too many
        ([[75], [40, 40]], 1),  # the second document would need 155, and three quarters are there
        ([[74], [20, 90]], 2),  # less than three quarters: its first part fills the batch
        ([[60], [50]], 1),  # a document of one step is short
        ([[60], [40], [20]], 2),
        ([[30, 30], [40, 20], [50]], 4),
        ([[130], [10]], 1),
    ],
    ids=str,
)
def test_a_request_that_is_alone_has_whole_documents_in_its_batches(documents: list[list[int]], expected: int) -> None:
    costs = [cost for document in documents for cost in document]
    ends = list(accumulate(map(len, documents)))
    alone = Waiting(0, 0, sum(costs), costs, 500, ends)
    assert next_batch([alone], 1, 100) == [expected]
    assert sum(costs[: next_batch([alone], 1, 100, is_shared=True)[0]]) <= max(100, costs[0])
