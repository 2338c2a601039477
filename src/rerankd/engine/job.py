"""One request in the queue: its known logits, its next steps, and the memory it holds. Knows no thread and no clock."""

from __future__ import annotations

import hashlib
import logging
import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from itertools import accumulate, islice
from typing import NamedTuple

from rerankd.engine.batching import Waiting
from rerankd.engine.chunks import Length, Step, plan, tokens_held
from rerankd.engine.protocols import Chunk, LastChunk, Reading, ReadsInChunks
from rerankd.types import Logits, Prompt

logger = logging.getLogger(__name__)

BYTES_PER_PROMPT = 1000
BYTES_PER_TOKEN = 4
"""Memory of a waiting prompt."""


class _Held(NamedTuple):
    """The keys and values read so far of a long prefix, and of the next prompt where it is long."""

    prefix: Reading | None = None
    document: Reading | None = None


def keys_of(prompts: Sequence[Prompt], owner: str = "") -> list[bytes]:
    """The key of each prompt: 16 bytes of BLAKE2b over its token ids and the length of its query.

    The length distinguishes two prompts of an encoder if a text contains a separator. The shared prefix of a query is
    hashed once.

    Args:
        owner: see `types.RerankRequest`. Keys differ between owners: a hit would reveal another owner's request.
    """
    heads: dict[tuple[int, tuple[int, ...]], hashlib.blake2b] = {}
    keys = []
    for prompt in prompts:
        common = prompt.query_tokens, prompt.prefix
        if common not in heads:
            first = array("i", (prompt.query_tokens, *prompt.prefix)).tobytes()
            heads[common] = hashlib.blake2b(first, digest_size=16)
        hashed = heads[common].copy()
        hashed.update(array("i", prompt.token_ids[prompt.shared_len :]).tobytes())
        if owner:
            hashed.update(b"owner" + owner.encode())
        keys.append(hashed.digest())
    return keys


class QueuedRequest:
    """A request of an engine, here or in front of replicas. It ends in exactly one of logits, an error, cancelled.

    A prompt that occurs twice, or whose logit is known, waits for nothing.

    Args:
        keys: of every prompt, in order; see `keys_of`.
        known: logits by key.
        progress: called with the number of prompts whose logits are known.

    Attributes:
        pending: the prompts to compute, by key.
        num_bytes: their memory.
        queue_s: from the arrival to the first computation.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        keys: Sequence[bytes],
        known: Mapping[bytes, float],
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.keys = keys
        self.pending = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
        self.num_bytes = sum(BYTES_PER_PROMPT + BYTES_PER_TOKEN * len(one.token_ids) for one in self.pending.values())
        self.queue_s = 0.0
        self.future: Future[Logits] = Future()
        self._logits = dict(known)
        self._cached = {index for index, key in enumerate(keys) if key in known}
        self._times = Counter(keys)
        self._num_known = len(self._cached)
        self._progress = progress

    def learn(self, found: Sequence[tuple[bytes, float]]) -> None:
        """Takes new logits, by key."""
        self._logits.update(found)
        self._num_known += sum(self._times[key] for key, _ in found)
        if not found or self._progress is None or self.future.done():
            return
        try:  # before the future is done: its waiter may be gone right after
            self._progress(self._num_known)
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self._progress = None

    def finish_if_complete(self) -> bool:
        """Ends the request if every logit is known; whether it did."""
        if self._num_known < len(self.keys):
            return False
        self.settle(Logits([self._logits[key] for key in self.keys], self._cached, self.queue_s))
        return True

    def expire(self) -> None:
        """Ends the request, if it did not end before, with the logits that are known. Called on any thread: it frees
        nothing that a running batch needs.
        """
        known = dict(self._logits)  # the engine's thread may be adding to it
        values = [known.get(key, math.nan) for key in self.keys]
        unscored = frozenset(index for index, key in enumerate(self.keys) if key not in known)
        self._end(Logits(values, self._cached, self.queue_s, unscored))

    def settle(self, outcome: Logits | Exception) -> None:
        """Ends the request, if it did not end before."""
        self._end(outcome)

    def _end(self, outcome: Logits | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass  # cancelled, or ended by its deadline, in the meantime


class Job(QueuedRequest):
    """A request with the steps that compute it.

    Args:
        max_chunk: see `plan`.
        owner: see `engine.protocols.LastChunk`.
        deadline: by the engine's clock.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        keys: Sequence[bytes],
        known: Mapping[bytes, float],
        max_chunk: int | None,
        progress: Callable[[int], None] | None = None,
        priority: int = 0,
        owner: str = "",
        deadline: float | None = None,
    ) -> None:
        super().__init__(prompts, keys, known, progress)
        self.deadline = deadline
        self._pending_keys, self._pending = list(self.pending), list(self.pending.values())
        self._plan(max_chunk)
        self.served = 0  # see batching.py
        self.running = False
        self.arrived = 0.0
        self._priority, self._owner = priority, owner

    def _plan(self, max_chunk: int | None) -> None:
        self._steps = plan(_lengths(self._pending), max_chunk)
        self._costs = [step.cost for step in self._steps]
        self._num_done = 0
        self._held = self._held_next = _Held()
        self.tokens_held = tokens_held(self._steps)
        self.remaining = sum(self._costs)

    def begin_again(self, max_chunk: int | None) -> None:
        """Plans the prompts without a logit in smaller chunks; what was read of one is lost."""
        done = sum(step.is_last for step in self._steps[: self._num_done])  # prompts end in their order
        self._pending_keys, self._pending = self._pending_keys[done:], self._pending[done:]
        self._plan(max_chunk)

    def waiting(self, max_tokens: int) -> Waiting:
        """The view of this request that the choice of a batch of `max_tokens` needs."""
        next_ones = slice(self._num_done, self._num_done + max_tokens + 1)
        ends = [count for count, step in enumerate(self._steps[next_ones], 1) if step.is_last]
        costs = self._costs[next_ones]
        return Waiting(self._priority, self.served, self.remaining, costs, self.tokens_held, ends)

    def in_time(self, count: int, cost: float) -> int:
        """How many of the next `count` steps can be done at a cost; 0 if even the next logit costs more."""
        start = next_end = self._num_done
        while not self._steps[next_end].is_last:
            next_end += 1
        if sum(self._costs[start : next_end + 1]) > cost:
            return 0
        return bisect_right(list(accumulate(self._costs[start : start + count])), cost)

    def take(self, count: int) -> list[Step]:
        """The next steps, counted as served; fewer where a document needs a prefix that these steps only complete."""
        steps: list[Step] = []
        for step in islice(self._steps, self._num_done, self._num_done + count):
            if step.after_prefix and not step.is_last and any(one.of_prefix for one in steps):
                break  # the document is read after a copy of that prefix
            steps.append(step)
        self.served += sum(step.cost for step in steps)
        return steps

    def prompts(self, steps: Sequence[Step]) -> list[Prompt]:
        """The prompts whose logits the steps give."""
        return [self._pending[step.prompt] for step in steps if step.is_last]

    def prepare(self, steps: Sequence[Step], model: ReadsInChunks) -> tuple[list[Chunk], list[LastChunk]]:
        """The model's work for the steps; may be called again for the same steps after a failure."""
        chunks: list[Chunk] = []
        last: list[LastChunk] = []
        held = self._held
        for step in steps:
            held = self._begun(held, step, model)
            prompt = self._pending[step.prompt]
            if step.is_last:
                last.append(LastChunk(prompt, held.document or held.prefix, self._owner))
                held = held._replace(document=None)
            else:
                reading = held.prefix if step.of_prefix else held.document
                assert reading is not None, "This is a bug: a chunk without a reading."
                chunks.append(Chunk(reading, step.end))
        self._held_next = held
        return chunks, last

    def _begun(self, held: _Held, step: Step, model: ReadsInChunks) -> _Held:
        """The readings that the step needs; a new one if the step begins it."""
        prefix = held.prefix if step.of_prefix or step.after_prefix else None
        if not step.begins:
            return held._replace(prefix=prefix)
        prompt = LastChunk(self._pending[step.prompt], None if step.of_prefix else prefix, self._owner)
        reading = model.begin(prompt, step.holds)
        return _Held(reading, None) if step.of_prefix else _Held(prefix, reading)

    def add(self, steps: Sequence[Step], logits: Sequence[float]) -> list[tuple[bytes, float]]:
        """The steps are done; returns the new logits by key."""
        found = [(self._pending_keys[step.prompt], logit) for step, logit in _last(steps, logits)]
        self._held = self._held_next
        self._num_done += len(steps)
        self.remaining -= sum(step.cost for step in steps)
        self.learn(found)
        return found

    def settle(self, outcome: Logits | Exception) -> None:
        """Ends the request, if it did not end before, and frees what it holds."""
        self.release()
        super().settle(outcome)

    def release(self) -> None:
        """Frees the memory of unfinished prompts."""
        self._held = self._held_next = _Held()


def _lengths(prompts: Iterable[Prompt]) -> Iterator[Length]:
    previous: Prompt | None = None
    for prompt in prompts:
        yield Length(len(prompt.token_ids), prompt.shared_len, prompt.shared_with(previous))
        previous = prompt


def _last(steps: Sequence[Step], logits: Sequence[float]) -> Iterable[tuple[Step, float]]:
    """The steps that give a logit, with it."""
    return zip((step for step in steps if step.is_last), logits, strict=True)
