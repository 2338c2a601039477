"""Which waiting prompts make the next batch. Pure: no clock, no thread, no tensor."""

from __future__ import annotations

from collections.abc import Sequence

FAIR_TURN = 8
"""Every eighth batch is for who was served least, however many shorter requests come."""

Request = tuple[int, int, Sequence[int]]
"""(priority, tokens served so far, tokens of each prompt that waits)"""


def next_batch(requests: Sequence[Request], turn: int, max_tokens: int) -> list[int]:
    """Shortest remaining work first, and every `FAIR_TURN`th batch least served first; always a lower priority first.

    So a short request is answered in about its own time, however much the others still have to do, and each of n
    waiting requests gets on at least once in FAIR_TURN × n batches (start-time fair queueing: a new request starts at
    the least served of those that wait, https://doi.org/10.1109/90.649569).

    While several requests wait, a batch is done with half of its tokens; beyond, it takes only what completes a
    request: nobody's answer waits for what would merely fill a batch.

    Args:
        requests: in the order of arrival.
        turn: counts the batches.
        max_tokens: bounds the sum of tokens, unless the first prompt alone is longer.

    Returns:
        How many prompts of each request are in the batch; at least one in all, if any waits.
    """
    fair = turn % FAIR_TURN == 0
    enough = max_tokens / 2 if sum(bool(costs) for _, _, costs in requests) > 1 else max_tokens

    def rank(index: int) -> tuple[int, int]:
        priority, served, costs = requests[index]
        return priority, served if fair else sum(costs)

    counts = [0] * len(requests)
    total = 0
    for index in sorted(range(len(requests)), key=rank):
        counts[index] = _fitting(requests[index][2], total, enough, max_tokens)
        total += sum(requests[index][2][: counts[index]])
        if total >= max(1, enough) or counts[index] < len(requests[index][2]):
            break
    return counts


def _fitting(costs: Sequence[int], total: int, enough: float, max_tokens: int) -> int:
    """How many prompts of one request go into a batch that has `total` tokens: all, or until it has enough."""
    if total + sum(costs) <= max_tokens:
        return len(costs)
    for count, tokens in enumerate(costs):
        if total and (total >= enough or total + tokens > max_tokens):
            return count
        total += tokens
    return len(costs)
