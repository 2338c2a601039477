"""Which waiting prompts make the next batch. Pure: no clock, no thread, no tensor."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def next_batch(requests: Sequence[tuple[int, int, Sequence[int]]], max_tokens: int) -> list[int]:
    """Shares a batch among requests: always the next prompt of the one that was served least, a lower priority first.

    So requests of one priority that wait at the same time get the same number of tokens, but for one prompt: a short
    one is not stuck behind a long one, and no one starves (start-time fair queueing, where a new request starts at the
    least served of those that wait: https://doi.org/10.1109/90.649569).

    Args:
        requests: (priority, tokens served so far, tokens of each prompt that waits), in the order of arrival.
        max_tokens: bounds the sum of tokens, unless the first prompt alone is longer.

    Returns:
        How many prompts of each request are in the batch; at least one in all, if any waits.
    """
    counts = [0] * len(requests)
    queue = [(priority, served, index) for index, (priority, served, waiting) in enumerate(requests) if waiting]
    heapq.heapify(queue)
    total = 0
    while queue:
        priority, served, index = heapq.heappop(queue)
        waiting = requests[index][2]
        tokens = waiting[counts[index]]
        if total + tokens > max_tokens and any(counts):
            break
        counts[index] += 1
        total += tokens
        if counts[index] < len(waiting):
            heapq.heappush(queue, (priority, served + tokens, index))
    return counts
