"""Which waiting prompts make the next batch. Pure: no clock, no thread, no tensor."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

Request = tuple[int, int, Sequence[int]]
"""(priority, tokens served so far, tokens of each prompt that waits)"""


def next_batch(requests: Sequence[Request], max_tokens: int) -> list[int]:
    """Shares a batch: half to who was served least, half to who has the least left; a lower priority first.

    The first half is start-time fair queueing (a new request starts at the least served of those that wait,
    https://doi.org/10.1109/90.649569): whoever waits gets on, in every batch. The second half is shortest remaining
    work first: a short request is answered in about its own time, however much the others still have to do.

    Args:
        requests: in the order of arrival.
        max_tokens: bounds the sum of tokens, unless the first prompt alone is longer.

    Returns:
        How many prompts of each request are in the batch; at least one in all, if any waits.
    """
    counts = [0] * len(requests)

    def served(index: int) -> int:
        return requests[index][1] + sum(requests[index][2][: counts[index]])

    def left(index: int) -> int:
        return sum(requests[index][2][counts[index] :])

    total = _fill(requests, counts, served, 0, max_tokens / 2, max_tokens)
    _fill(requests, counts, left, total, max_tokens, max_tokens)
    return counts


def _fill(
    requests: Sequence[Request],
    counts: list[int],
    rank: Callable[[int], int],
    total: int,
    enough: float,
    max_tokens: int,
) -> int:
    """Adds prompts of the request that ranks lowest, until there is enough or the next one does not fit.

    Returns:
        The batch's tokens.
    """
    queue = [(requests[i][0], rank(i), i) for i in range(len(requests)) if counts[i] < len(requests[i][2])]
    heapq.heapify(queue)
    while queue and (total < enough or not any(counts)):
        priority, _, index = heapq.heappop(queue)
        tokens = requests[index][2][counts[index]]
        if total + tokens > max_tokens and any(counts):
            break
        counts[index] += 1
        total += tokens
        if counts[index] < len(requests[index][2]):
            heapq.heappush(queue, (priority, rank(index), index))
    return total
