"""The calls in the queue of the front: their known logits, the parts that wait, and whose turn it is. Knows no ray."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from rerankd.cluster.parts import costs_of, cut, num_parts
from rerankd.types import Logits, Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """Prompts that one replica scores. cost: tokens to compute."""

    keys: Sequence[bytes]
    prompts: Sequence[Prompt]
    cost: int


class ClusterCall:
    """One call. A prompt that occurs twice, or whose logit is known, is not sent again.

    Args:
        keys: of every prompt, in order.
        known: logits by key.

    Attributes:
        parts: those that no replica has yet.
        asking: those that replicas have.
        served: tokens sent so far, and those that others had been sent when it arrived.
        queue_s: until its first part is sent.
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
        self.priority, self.owner = priority, owner
        self.parts: deque[Part] = deque()
        self.asking: set[asyncio.Task[None]] = set()
        self.served = 0
        self.begun = False
        self.queue_s = 0.0
        self.arrived = time.monotonic()
        self.future: Future[Logits] = Future()
        self._keys, self._progress = keys, progress
        self._logits = dict(known)
        self._cached = {index for index, key in enumerate(keys) if key in known}
        self._times = Counter(keys)
        self._num_known = len(self._cached)
        self._pending = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        self.tokens_left = 0

    def divide(self, max_batch_tokens: int, num_replicas: int) -> None:
        """Makes the parts; see `parts.num_parts`."""
        keys, prompts = list(self._pending), list(self._pending.values())
        costs = costs_of(prompts)
        self.tokens_left = sum(costs)
        for start, end in cut(costs, num_parts(self.tokens_left, max_batch_tokens, num_replicas)):
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
        self._logits.update(found)
        self.tokens_left -= part.cost
        self._num_known += sum(self._times[key] for key in part.keys)
        try:
            if self._progress:
                self._progress(self._num_known)
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self._progress = None
        return found

    def finish_if_complete(self) -> bool:
        """Ends the call if every logit is known; whether it did."""
        if self._num_known < len(self._keys):
            return False
        self._settle(Logits([self._logits[key] for key in self._keys], self._cached, self.queue_s))
        return True

    def expire(self) -> None:
        """Ends the call with the logits that are known."""
        values = [self._logits.get(key, math.nan) for key in self._keys]
        unscored = frozenset(index for index, key in enumerate(self._keys) if key not in self._logits)
        self._settle(Logits(values, self._cached, self.queue_s, unscored))

    def fail(self, error: Exception) -> None:
        """Ends the call, if it did not end before."""
        self._settle(error)

    def _settle(self, outcome: Logits | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass  # cancelled, or failed before


def next_call(calls: Sequence[ClusterCall]) -> ClusterCall | None:
    """Whose part is sent next: lower priorities first, then the call that was sent least; None if no part waits."""
    waiting = [call for call in calls if call.parts]
    return min(waiting, key=lambda call: (call.priority, call.served), default=None)
