"""Chooses the steps of the next batch, and divides sequences into batches. Pure: no clock, no thread, no tensor."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import accumulate
from typing import NamedTuple, TypeVar

from rerankd.engine.chunks import may_hold

Tokens = TypeVar("Tokens", bound=Sized)

FAIR_TURN = 8
"""Every eighth batch is for the request that was served least, whatever the others' priority and length."""

SHORTEST, LONGEST = 0.75, 1.25
"""Shares of its tokens between which a batch may end with a document."""

RECENT_BATCHES = 16
"""After this many batches, it no longer counts that several requests waited."""


class Waiting(NamedTuple):
    """A request, as the choice sees it.

    served, remaining: cost computed so far, and still to compute. costs: of its next steps, in order, each >= 1; either
    all of them, or more than fit into a batch. tokens_held: see `chunks.tokens_held`. ends: the numbers of steps after
    which a prompt is done.
    """

    priority: int
    served: int
    remaining: int
    costs: Sequence[int]
    tokens_held: int = 0
    ends: Sequence[int] = ()


class Batches:
    """Chooses one batch after the other.

    For a request that is alone, full batches are the fastest. Where several requests waited lately, batches are
    smaller: the next one that comes waits for less.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._last_shared = -RECENT_BATCHES  # the turn in which several requests waited

    def choose(self, requests: Sequence[Waiting], max_tokens: int) -> list[int]:
        """How many steps of each request are in the next batch of an engine. Arguments: see `next_batch`."""
        self._turn += 1
        if len(requests) > 1:
            self._last_shared = self._turn
        allowed = may_hold([request.tokens_held for request in requests])
        may_run = [one if may else one._replace(costs=()) for one, may in zip(requests, allowed, strict=True)]
        is_shared = self._turn - self._last_shared < RECENT_BATCHES
        # A long prompt takes many batches of any size: small ones shorten the wait of a new request.
        only_long = all(request.tokens_held for request in requests)
        return next_batch(may_run, self._turn, max_tokens // 2 if is_shared and only_long else max_tokens, is_shared)


def next_batch(requests: Sequence[Waiting], turn: int, max_tokens: int, is_shared: bool = False) -> list[int]:
    """A lower priority first, then shortest remaining work first; every `FAIR_TURN`th batch, least served first.

    So a short request is answered in about its own time, however much the others still have to do, and each of n
    waiting requests gets on at least once in FAIR_TURN × n batches, whatever their priorities (start-time fair
    queueing: a new request starts at the least served of those that wait, https://doi.org/10.1109/90.649569).

    While several requests wait, or where they did lately, a batch is done with a third of its tokens; beyond, it takes
    only what completes a request: nobody's answer waits for what would merely fill a batch.

    Args:
        requests: in the order of arrival.
        turn: counts the batches.
        max_tokens: bounds the sum of costs, unless the first step alone costs more, or a little more completes a long
            document of a request that is alone.
        is_shared: several requests waited lately.

    Returns:
        How many steps of each request are in the batch; at least one in all, if any waits.
    """
    fair = turn % FAIR_TURN == 0
    several = is_shared or sum(bool(request.costs) for request in requests) > 1
    enough = max_tokens / 3 if several else max_tokens

    def rank(index: int) -> tuple[int, int]:
        request = requests[index]
        return (request.served, 0) if fair else (request.priority, request.remaining)

    if len(requests) == 1 and not several:
        return [_alone(requests[0], max_tokens)]
    counts = [0] * len(requests)
    total = 0
    waiting = (index for index, request in enumerate(requests) if request.costs)
    for index in sorted(waiting, key=rank):
        costs = requests[index].costs
        counts[index] = _fitting(costs, total, enough, max_tokens)
        total += sum(costs[: counts[index]])
        if total >= max(1, enough) or counts[index] < len(costs):
            break
    return counts


def _fitting(costs: Sequence[int], total: int, enough: float, max_tokens: int) -> int:
    """How many steps of one request go into a batch that has `total` tokens: all, or until it has enough."""
    if total + sum(costs) <= max_tokens:
        return len(costs)
    for count, tokens in enumerate(costs):
        if total and (total >= enough or total + tokens > max_tokens):
            return count
        total += tokens
    return len(costs)


def _alone(request: Waiting, max_tokens: int) -> int:
    """How many steps of a request go into a batch of its own.

    Keys and values of a document that is read in two batches have to be kept and read again. So a batch may be a
    quarter longer to complete a document, or a quarter shorter to leave it to the next one.
    """
    tokens = list(accumulate(request.costs))
    fitting = bisect_right(tokens, max_tokens)
    begin = max((end for end in request.ends if end <= fitting), default=0)
    end = next((end for end in request.ends if end > fitting), 0)
    if end - begin > 1 and tokens[end - 1] <= max_tokens * LONGEST:
        return end
    if end - begin != 1 and begin and tokens[begin - 1] >= max_tokens * SHORTEST:
        return begin
    return max(fitting, min(1, len(tokens)))


def divided(sequences: Iterable[Tokens], most: int) -> Iterator[list[Tokens]]:
    """Consecutive sequences of at most `most` tokens together. A longer one is alone."""
    batch: list[Tokens] = []
    tokens = 0
    for one in sequences:
        if batch and tokens + len(one) > most:
            yield batch
            batch, tokens = [], 0
        batch.append(one)
        tokens += len(one)
    if batch:
        yield batch
