"""How a request's prompts are computed step by step, and which requests may hold unfinished ones. Knows lengths only.

A short prompt is one step. A long one is read in chunks, between which other requests' steps run; a long prefix that
several prompts share is read once, before them. Where the chunks end depends on the prompt only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

CONTEXT_STEP = 2048
"""Attention to this many earlier tokens costs as much as the rest of a token (0.6B; larger models: more tokens)."""

LANES = (1024, 4096)
LANE_TOKENS = 8192
"""Requests whose unfinished prompts have up to 1,024 tokens, up to 4,096, and more: each of these kinds may hold 8,192
tokens in all (0.9 GB for the 0.6B), or one request that needs more."""


class Length(NamedTuple):
    """The tokens of a prompt, of its shared prefix, and of the part that it shares with the previous prompt."""

    tokens: int
    shared: int
    known: int


@dataclass(frozen=True, slots=True)
class Step:
    """A unit of work. One batch computes it whole.

    prompt: its index. end: how many tokens of it are read afterwards; in its last step it has its logit. cost: in
    tokens of a batch. begins: the first of the steps that read these `holds` tokens. of_prefix: they belong to the
    prompts that follow, too. after_prefix: it goes on from such a prefix.
    """

    prompt: int
    end: int
    cost: int
    is_last: bool = True
    begins: bool = False
    holds: int = 0
    of_prefix: bool = False
    after_prefix: bool = False


def plan(prompts: Iterable[Length], max_chunk: int | None) -> list[Step]:
    """The steps of a request, in order.

    Args:
        max_chunk: a prefix, or what follows it, that costs more is cut into chunks of half of it. None: each prompt
            is one step.
    """
    if max_chunk is None:
        return [Step(index, one.tokens, one.tokens - one.known) for index, one in enumerate(prompts)]
    return [step for index, one in enumerate(prompts) for step in _steps(index, one, max_chunk)]


def _steps(index: int, prompt: Length, max_chunk: int) -> Iterator[Step]:
    length, shared, known = prompt
    long_prefix = shared > max_chunk
    if long_prefix and not known:
        for start, end in _chunks(0, shared, max_chunk):
            yield Step(index, end, _cost(start, end), False, begins=not start, holds=shared, of_prefix=True)
    chunks = _chunks(shared, length, max_chunk)
    unread = 0 if long_prefix else shared - known
    for start, end in chunks:
        cost, is_last = _cost(start, end) + (unread if start == shared else 0), end == length
        holds = 0 if is_last else chunks[-1][0]
        yield Step(index, end, cost, is_last, start == shared and not is_last, holds, after_prefix=long_prefix)


def _chunks(start: int, stop: int, max_chunk: int) -> list[tuple[int, int]]:
    """Splits anything longer than max_chunk into halves of it, so that one fits beside a short request."""
    if _cost(start, stop) <= max_chunk:
        return [(start, stop)] if start < stop else []
    chunks = []
    while start < stop:
        end = min(stop, start + max(1, max_chunk // 2 // _weight(start)))
        chunks.append((start, end))
        start = end
    return chunks


def _cost(start: int, end: int) -> int:
    return (end - start) * _weight(start)


def _weight(context: int) -> int:
    return 1 + context // CONTEXT_STEP


def tokens_held(steps: Iterable[Step]) -> int:
    """The most tokens whose keys and values a request holds at a time during these steps; 0 if no prompt is long."""
    prefix = most = 0
    for step in steps:
        prefix = step.holds if step.of_prefix else prefix if step.after_prefix else 0
        most = max(most, prefix + (0 if step.of_prefix else step.holds))
    return most


def may_hold(needs: Sequence[int]) -> list[bool]:
    """Whether each waiting request may run, in the order of arrival, so that the tokens that they hold stay bounded.

    needs: the `tokens_held` of each request. A request that may run once may run until it is done.
    """
    taken = [0] * (len(LANES) + 1)
    allowed = []
    for need in needs:
        lane = bisect_left(LANES, need)
        taken[lane] += need
        allowed.append(not need or taken[lane] <= LANE_TOKENS or taken[lane] == need)
    return allowed
