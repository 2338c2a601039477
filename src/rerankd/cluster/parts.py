"""Divides a call into parts of about equal work. Pure: knows no queue, no replica and no clock.

Ray Serve chooses a replica by the number of its requests. Parts of equal work make that a choice by work; a large call
uses all replicas; and a replica that is lost loses little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rerankd.types import Prompt

BATCHES = 8
"""Full batches in a part: enough that a hop of some milliseconds is a small share of its work. A call with a deadline
has parts of one batch, since a part that is not done by then is lost."""

LEAST_BATCHES = 2
"""A call is spread over idle replicas in parts of at least this many batches."""


def costs_of(prompts: Sequence[Prompt]) -> list[int]:
    """The tokens to compute for each prompt after the previous one: a shared prefix costs once."""
    costs, previous = [], None
    for prompt in prompts:
        costs.append(len(prompt.token_ids) - prompt.shared_with(previous))
        previous = prompt
    return costs


def num_parts(tokens: int, max_batch_tokens: int, num_replicas: int, batches: int | None = None) -> int:
    """The number of parts of a call, at least 1.

    Args:
        max_batch_tokens: of a replica's engine.
        num_replicas: a call of several batches is divided among all of them.
        batches: the most in a part; None: BATCHES.
    """
    most = math.ceil(tokens / ((batches or BATCHES) * max_batch_tokens))
    spread = min(num_replicas, tokens // (LEAST_BATCHES * max_batch_tokens))
    return max(1, most, spread)


def cut(costs: Sequence[int], number: int) -> Iterator[tuple[int, int]]:
    """The first prompt and the last + 1 of each part: whole prompts in order, at most `number` parts of like cost."""
    total, begun, done, given = sum(costs), 0, 0, 0
    for end, cost in enumerate(costs, 1):
        done += cost
        if done * number >= total * (given + 1) or end == len(costs):
            yield begun, end
            begun, given = end, done * number // total
