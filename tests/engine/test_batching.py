"""next_batch: every prompt once, in order, within the budget."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from rerankd.engine.batching import next_batch


@given(sizes=st.lists(st.integers(0, 50), max_size=30), max_tokens=st.integers(0, 60))
@example(sizes=[100, 1], max_tokens=60)
@example(sizes=[1, 100, 1], max_tokens=60)
@example(sizes=[30, 30, 1], max_tokens=60)
def test_batches_cover_the_queue_in_order_and_keep_the_budget(sizes: list[int], max_tokens: int) -> None:
    waiting = list(enumerate(sizes))
    while waiting:
        batch = next_batch(waiting, max_tokens)
        assert batch == [index for index, _ in waiting[: len(batch)]]
        assert batch, "no progress"
        total = sum(sizes[index] for index in batch)
        assert total <= max_tokens or len(batch) == 1
        waiting = waiting[len(batch) :]
        assert not waiting or total + waiting[0][1] > max_tokens, "the next one would have fit"


def test_nothing_waiting_makes_no_batch() -> None:
    assert next_batch([], 10) == []
