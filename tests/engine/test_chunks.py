"""Plans: every token of every prompt once, in pieces that fit; and how many tokens may be held at a time."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from rerankd.engine.batching import FAIR_TURN, Waiting, next_batch
from rerankd.engine.chunks import LANE_TOKENS, LANES, Length, Step, may_hold, plan, tokens_held

SHAPES = st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(1, 60))
"""Which prefix, how much of it, and how many tokens follow."""


def prompts(shapes: list[tuple[int, int, int]]) -> list[Length]:
    prefixes = [(seed if shared else 0, shared) for seed, shared, _ in shapes]
    return [
        Length(shared + own, shared, shared if index and prefixes[index] == prefixes[index - 1] else 0)
        for index, (_, shared, own) in enumerate(shapes)
    ]


@given(st.lists(SHAPES, max_size=6), st.integers(1, 40))
@example([(0, 50, 50), (0, 50, 50)], 10)
def test_each_prompt_is_read_once_to_its_end(shapes: list[tuple[int, int, int]], max_chunk: int) -> None:
    pairs = prompts(shapes)
    read: dict[int, int] = {}  # of each prompt
    prefix = 0  # tokens of the last one that was read apart
    for step in plan(pairs, max_chunk):
        pair = pairs[step.prompt]
        if step.of_prefix:
            start = 0 if step.begins else prefix
            prefix = step.end
            assert step.end <= step.holds == pair.shared
        else:
            known = prefix if step.after_prefix else pair.known
            start = read.get(step.prompt, known)
            assert not step.after_prefix or prefix == pair.shared
            read[step.prompt] = step.end
            assert step.is_last == (step.end == pair.tokens) and step.end > start
        assert step.end - start <= step.cost <= 2 * max_chunk
    assert read == {index: pair.tokens for index, pair in enumerate(pairs)}


@given(st.lists(SHAPES, max_size=6))
def test_a_model_without_chunks_has_one_step_a_prompt(shapes: list[tuple[int, int, int]]) -> None:
    pairs = prompts(shapes)
    costs = [pair.tokens - pair.known for pair in pairs]
    assert plan(pairs, None) == [Step(i, pairs[i].tokens, cost) for i, cost in enumerate(costs)]
    assert tokens_held(plan(pairs, None)) == 0


def test_a_long_prefix_is_read_once_for_all_its_documents() -> None:
    steps = plan(prompts([(0, 25, 5), (0, 25, 5), (1, 25, 5)]), 10)
    of_prefix = [(step.prompt, step.end) for step in steps if step.of_prefix]
    assert of_prefix == [(index, end) for index in (0, 2) for end in (5, 10, 15, 20, 25)]
    assert [step.cost for step in steps if step.is_last] == [5, 5, 5]
    assert tokens_held(steps) == 25


def test_late_chunks_are_shorter_since_attention_makes_them_dearer() -> None:
    [long] = prompts([(0, 0, 20_000)])
    steps = plan([long], 256)
    lengths = [step.end - before for step, before in zip(steps, (0, *(step.end for step in steps)), strict=False)]
    assert lengths[0] == 128 and lengths[-2] == 128 // 10
    assert all(step.cost <= 128 for step in steps)
    assert tokens_held(steps) == steps[-2].end


def test_the_ends_of_chunks_depend_on_the_prompt_only() -> None:
    [pair] = prompts([(0, 25, 50)])
    after_another = plan(prompts([(0, 25, 5), (0, 25, 50), (2, 5, 1)]), 10)
    alone = plan([pair], 10)
    assert [step.end for step in after_another if step.prompt == 1] == [s.end for s in alone if not s.of_prefix]


# One long prompt beside short requests


@given(long=st.integers(100, 5000), shorts=st.lists(st.integers(1, 20), min_size=1, max_size=5))
def test_a_short_request_beside_a_long_prompt_waits_for_one_batch(long: int, shorts: list[int]) -> None:
    """Of two turns in a row one is not the fair one, and that is the short request's."""
    budget = 40
    costs = [step.cost for step in plan(prompts([(0, 0, long)]), budget // 2)]
    for turn in range(2, 2 + FAIR_TURN):
        waiting = [Waiting(0, 0, sum(costs), costs), *(Waiting(0, 900, size, [size]) for size in shorts)]
        first = next_batch(waiting, turn, budget)
        second = next_batch(waiting, turn + 1, budget)
        assert sum(first[1:]) or sum(second[1:])
        assert sum(costs[: first[0]]) <= budget


@given(long=st.integers(100, 3000), short=st.integers(1, 40))
def test_a_long_prompt_beside_a_stream_of_short_ones_is_read_to_its_end(long: int, short: int) -> None:
    costs = [step.cost for step in plan(prompts([(0, 0, long)]), 20)]
    served = 0
    for turn in range(FAIR_TURN * (len(costs) + 1)):
        count = next_batch(
            [Waiting(0, served, sum(costs), costs), *[Waiting(0, served, short, [short])] * 8], turn, 40
        )[0]
        served, costs = served + sum(costs[:count]), costs[count:]
        if not costs:
            return
    raise AssertionError("it is still waiting")


# What is held


@given(st.lists(st.integers(0, 40_000), max_size=12))
def test_the_tokens_held_are_bounded_and_the_first_of_each_kind_gets_on(needs: list[int]) -> None:
    allowed = may_hold(needs)
    held = sorted(need for need, may in zip(needs, allowed, strict=True) if may)
    small = [need for need in held if need <= LANES[1]]
    large = [need for need in held if need > LANES[1]]
    assert sum(small) <= 2 * LANE_TOKENS and (sum(large) <= LANE_TOKENS or len(large) == 1)
    assert all(may for need, may in zip(needs, allowed, strict=True) if not need)
    assert not any(needs) or allowed[next(index for index, need in enumerate(needs) if need)]


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=12), st.data())
def test_who_may_hold_may_until_it_is_done(needs: list[int], data: st.DataObject) -> None:
    """Others come behind it, and others leave."""
    index = data.draw(st.integers(0, len(needs) - 1))
    if may_hold(needs)[index]:
        gone = data.draw(st.sets(st.integers(0, len(needs) - 1))) - {index}
        later = data.draw(st.lists(st.integers(0, 40_000), max_size=4))
        left = [i for i in range(len(needs)) if i not in gone]
        assert may_hold([*(needs[i] for i in left), *later])[left.index(index)]


def test_a_medium_prompt_does_not_wait_for_a_large_one() -> None:
    assert may_hold([30_000, 30_000, 2000, 600, 2000]) == [True, False, True, True, True]
