"""Which waiting prompts make the next batch. Pure: no clock, no thread, no tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def next_batch(waiting: Iterable[tuple[Item, int]], max_tokens: int) -> list[Item]:
    """Takes from the front until the next prompt would not fit; always takes the first.

    Args:
        waiting: (prompt, its tokens) in the order of arrival.
        max_tokens: bounds the sum of tokens, unless the first prompt alone is longer.
    """
    batch: list[Item] = []
    total = 0
    for item, num_tokens in waiting:
        if batch and total + num_tokens > max_tokens:
            break
        batch.append(item)
        total += num_tokens
    return batch
