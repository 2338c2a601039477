"""The calls in the queue of the front: their known logits, the parts that wait, and whose turn it is. Knows no ray."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rerankd.cluster.parts import costs_of, cut, num_parts
from rerankd.engine.job import QueuedRequest
from rerankd.types import Prompt


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that one replica scores. cost: tokens to compute."""

    keys: Sequence[bytes]
    prompts: Sequence[Prompt]
    cost: int


class ClusterCall(QueuedRequest):
    """One call, with the parts that replicas score.

    Attributes:
        parts: those that no replica has yet.
        asking: those that replicas have.
        served: tokens sent so far, and those that others had been sent when it arrived.
        tokens_left: to compute, for which no answer is here yet.
        alarm: ends it at its deadline, if it has one.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        keys: Sequence[bytes],
        known: Mapping[bytes, float],
        progress: Callable[[int], None] | None,
        priority: int,
        owner: str,
    ) -> None:
        super().__init__(prompts, keys, known, progress)
        self.priority, self.owner = priority, owner
        self.parts: deque[Part] = deque()
        self.asking: set[asyncio.Task[None]] = set()
        self.served = 0
        self.begun = False
        self.arrived = time.monotonic()
        self.tokens_left = 0
        self.alarm: asyncio.TimerHandle | None = None

    def divide(self, max_batch_tokens: int, num_replicas: int, batches: int | None = None) -> None:
        """Makes the parts; see `parts.num_parts`."""
        keys, prompts = list(self.pending), list(self.pending.values())
        costs = costs_of(prompts)
        self.tokens_left = sum(costs)
        for start, end in cut(costs, num_parts(self.tokens_left, max_batch_tokens, num_replicas, batches)):
            self.parts.append(Part(keys[start:end], prompts[start:end], sum(costs[start:end])))

    def take(self) -> Part:
        """The next part."""
        if not self.begun:
            self.begun, self.queue_s = True, time.monotonic() - self.arrived
        part = self.parts.popleft()
        self.served += part.cost
        return part

    def add(self, part: Part, logits: Sequence[float]) -> list[tuple[bytes, float]]:
        """Takes the logits of a part; gives them with their keys."""
        found = list(zip(part.keys, logits, strict=True))
        self.tokens_left -= part.cost
        self.learn(found)
        return found


def next_call(calls: Sequence[ClusterCall]) -> ClusterCall | None:
    """Whose part is sent next: lower priorities first, then the call that was sent least; None if no part waits."""
    waiting = [call for call in calls if call.parts]
    return min(waiting, key=lambda call: (call.priority, call.served), default=None)
