"""One queue, one thread, one future for each request: prompts of many requests share batches.

Every request ends in exactly one of: logits, an error, cancelled. Knows no text and no API.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice

from rerankd.engine.alarm import Alarm
from rerankd.engine.batching import Batches
from rerankd.engine.cache import ScoreCache
from rerankd.engine.chunks import Step
from rerankd.engine.counters import Counters
from rerankd.engine.entrance import Entrance
from rerankd.engine.job import Job, keys_of
from rerankd.engine.out_of_memory import is_out_of_memory, return_cached_memory
from rerankd.engine.protocols import Model, ReadsInChunks, SharesPrefixes, SizesBatches
from rerankd.engine.speed import Speed
from rerankd.errors import InferenceError, Stopping
from rerankd.stats import CacheStats, EngineStats
from rerankd.types import Logits, ModelInfo, Prompt

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 512
"""On CPU: half of it fills the matrix units; all of it leaves activations in the caches, and a request that arrives in
the middle of a batch waits a quarter of a second (0.6B, 2 cores)."""

MAX_BATCH_TOKENS_GPU = 16384
"""On a GPU at most, and where the model does not say how many fit into its memory: see `SizesBatches`."""

LEAST_SHARE = 8
"""Batches that do not fit into memory are halved to this part of the tokens at the start: a request for which nothing
would be small enough does not slow down all that follow."""

FAILURES_IN_A_ROW = 3
"""After this many batches in a row that failed outside the model, the engine gives up."""

_Part = tuple[Job, list[Step]]
"""A request's share of a batch."""


class Engine:
    """Runs a model on its own thread.

    Args:
        max_queue: requests in the queue; one more is refused.
        score_cache_bytes: memory for known logits; 0 keeps none.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Model,
        max_queue: int = 256,
        score_cache_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._clock = model, clock
        self._cache = ScoreCache(score_cache_bytes)
        self._counters = Counters()
        self._prefixes = model if isinstance(model, SharesPrefixes) else None
        self._chunked = model if isinstance(model, ReadsInChunks) else None
        self._entrance = Entrance(max_queue)
        self._max_batch_tokens = _batch_tokens(model)
        self._least_batch_tokens = self._max_batch_tokens // LEAST_SHARE
        self._batches = Batches()
        self._jobs: list[Job] = []  # in the order of arrival; the first ones may be half done
        self._changed = threading.Condition()
        self._alarm = Alarm(self.end_late, clock)
        self._speed = Speed()
        self._batch_began: float | None = None  # by time.monotonic; None between batches
        self._failure: BaseException | None = None
        self._on_failure: Callable[[BaseException], None] | None = None
        self._thread = threading.Thread(target=self._run, name="rerankd-engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> ModelInfo:
        """The model that runs."""
        return self._model.info

    def submit(
        self,
        prompts: Sequence[Prompt],
        progress: Callable[[int], None] | None = None,
        priority: int = 0,
        owner: str = "",
        deadline: float | None = None,
    ) -> Future[Logits]:
        """Queues a request. The future holds one logit for each prompt, in order; cancelling it frees the work.

        Takes processor time where there are many prompts.

        Args:
            progress: called on the engine's thread with the number of prompts done so far.
            priority: lower values run first, except in the batches reserved for the request served least.
            owner: see `types.RerankRequest`.
            deadline: by the clock. The future then holds the logits that are known, those of the first prompts, even
                while a batch runs; what that still computes goes to the cache only. No batch is begun for the request
                that would end later.

        Raises:
            Busy: the queue is full.
            Stopping: `close` was called, or the engine failed.
            MadeBeforeFork: this is another process than the one that made the engine.

        The future fails with InferenceError if the model fails.
        """
        self.refuse_after_fork()
        keys = keys_of(prompts, owner)
        with self._changed:
            self._refuse_when_stopping()
            known = self._cache.known(keys, [len(prompt.token_ids) for prompt in prompts])
        job = Job(prompts, keys, known, self._max_chunk, progress, priority, owner, deadline)
        job.finish_if_complete()
        if not job.future.done():
            self._queue(job)
        return job.future

    def _queue(self, job: Job) -> None:
        with self._changed:
            self._refuse_when_stopping()
            self._drop_finished()
            waiting = [other.num_bytes for other in self._jobs]
            self._entrance.refuse_when_full(len(job.keys), job.num_bytes, waiting, self._seconds_to_room)
            job.arrived = self._clock()
            job.served = min((other.served for other in self._jobs), default=0)
            self._jobs.append(job)
            self._changed.notify()
        if job.deadline is not None:
            self._alarm.set(job.deadline)

    def _refuse_when_stopping(self) -> None:
        if self._failure is not None:
            raise Stopping("The engine failed and the server ends; send the request again.", 5)
        self._entrance.refuse_when_closed()

    @property
    def _max_chunk(self) -> int | None:
        """Half a batch: the tokens that run while others wait."""
        return self._max_batch_tokens // 2 if self._chunked else None

    @property
    def num_queued(self) -> int:
        """Requests that are queued or running."""
        return len(self._jobs)

    @property
    def max_batch_tokens(self) -> int:
        """Tokens that are computed together, unless the model cannot read a long prompt in chunks."""
        return self._max_batch_tokens

    @property
    def seconds_in_batch(self) -> float:
        """How long the running batch has taken so far; 0 between batches."""
        began = self._batch_began
        return 0.0 if began is None else self._clock() - began

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the engine's thread: nothing is computed any more."""
        return self._failure

    def watch(self, on_failure: Callable[[BaseException], None]) -> None:
        """Calls a function, on the engine's thread, if that thread fails."""
        self._on_failure = on_failure
        if self._failure is not None:
            on_failure(self._failure)

    @property
    def stats(self) -> EngineStats:
        """Counters since the start, and the queue now."""
        with self._changed:
            queued = [job for job in self._jobs if not job.future.done()]
            running = sum(job.running for job in queued)
            return self._counters.stats(running, len(queued) - running, self._cache.stats)

    def close(self) -> None:
        """Refuses new requests, finishes those in the queue and ends the thread."""
        if self._entrance.is_forked:
            return  # its thread does not run here, and its lock may be held for ever
        with self._changed:
            self._entrance.closed = True
            self._changed.notify()
        self._thread.join()
        self._alarm.close()

    def end_late(self) -> float:
        """Ends the requests whose deadline has come with the logits that are known, whatever the model does meanwhile.

        The engine calls it at each deadline, on a thread of its own. Returns the next deadline, or infinity.
        """
        with self._changed:
            waiting = [(job.deadline, job) for job in self._jobs if job.deadline is not None and not job.future.done()]
        now = self._clock()
        for deadline, job in waiting:
            if deadline <= now:
                job.expire()
        return min((deadline for deadline, _ in waiting if deadline > now), default=math.inf)

    def refuse_after_fork(self) -> None:
        """Raises MadeBeforeFork in a child process: no thread of the engine runs there."""
        self._entrance.refuse_after_fork()

    def _seconds_to_room(self) -> float:
        """Until the oldest request is done, by the speed so far."""
        return self._jobs[0].remaining * self._speed.seconds_per_token

    def _run(self) -> None:
        failures = 0
        while failures < FAILURES_IN_A_ROW:
            batch: list[_Part] = []
            try:
                batch = self._next_batch()
                if not batch:
                    return
                self._batch_began = self._clock()
                self._score(batch)
                failures = 0
            except BaseException as error:  # no caller may wait for ever
                logger.critical("The engine failed outside the model", exc_info=error)
                failures += 1
                failure = error
                self._fail([job for job, _ in batch] or self._jobs, error)
            self._batch_began = None
            self._release(batch)
            del batch  # frees the last batch while the thread waits for work
        self._give_up(failure)

    def _fail(self, jobs: Sequence[Job], error: BaseException) -> None:
        for job in jobs:
            failure = InferenceError("The model failed on this request; the server's log has the cause.")
            failure.__cause__ = error
            job.settle(failure)

    def _release(self, batch: list[_Part]) -> None:
        """Frees the memory of requests that ended meanwhile: cancelled, or at their deadline."""
        for job, _ in batch:
            if job.future.done():
                job.release()

    def _give_up(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._fail(self._jobs, error)
        logger.critical("The engine failed %d times in a row and has ended.", FAILURES_IN_A_ROW)
        if self._on_failure:
            self._on_failure(error)

    def _next_batch(self) -> list[_Part]:
        """Waits for work; empty when there is none and the engine stops."""
        with self._changed:
            while True:
                self._expire()
                self._drop_finished()
                if self._jobs:
                    if batch := self._choose():
                        return batch
                elif self._entrance.closed:
                    return []
                else:
                    self._changed.wait()

    def _choose(self) -> list[_Part]:
        """The next batch; empty where a deadline has come since it was looked at."""
        most = self._max_batch_tokens
        counts = self._batches.choose([job.waiting(most) for job in self._jobs], most)
        in_time = (self._in_time(job, count) for job, count in zip(self._jobs, counts, strict=True))
        batch = [(job, job.take(count)) for job, count in zip(self._jobs, in_time, strict=True) if count]
        for job, _ in batch:
            if not job.running:
                job.running = True
                job.queue_s = self._clock() - job.arrived
                self._counters.began(job.queue_s)
        return batch

    def _in_time(self, job: Job, count: int) -> int:
        """How many of its next steps are done before its deadline, by the speed of the last batches."""
        if job.deadline is None or not count:
            return count
        left_s = job.deadline - self._clock()
        seconds = self._speed.seconds_per_token
        return job.in_time(count, left_s / seconds if seconds else math.inf) if left_s > 0 else 0

    def _expire(self) -> None:
        """Ends the requests that get no further logit in time: before their deadline, where nothing can be added."""
        for job in self._jobs:
            if job.deadline is not None and not job.future.done() and not self._in_time(job, 1):
                if not job.running and job.deadline > self._clock():
                    self._speed.doubt()
                job.expire()

    def _drop_finished(self) -> None:
        """Drops requests that are answered, failed or cancelled."""
        self._jobs = [job for job in self._jobs if not job.future.done()]

    def _score(self, batch: list[_Part]) -> None:
        prompts = [prompt for job, steps in batch for prompt in job.prompts(steps)]
        before, started = self._tokens_computed, self._clock()
        try:
            logits = self._logits(batch, prompts)
            if len(logits) != len(prompts):
                raise AssertionError(f"This is a bug: {len(logits)} logits for {len(prompts)} prompts.")
        except BaseException as error:
            if not self._try_smaller(batch, error):
                self._blame(batch, error)
            return
        seconds = self._clock() - started
        tokens = self._tokens_computed - before if self._prefixes else sum(len(prompt.token_ids) for prompt in prompts)
        self._count(tokens, sum(step.cost for _, steps in batch for step in steps), seconds)
        rest = iter(logits)
        for job, steps in batch:
            found = job.add(steps, list(islice(rest, len(job.prompts(steps)))))
            with self._changed:
                self._cache.put_all(found)
            job.finish_if_complete()

    def _logits(self, batch: list[_Part], prompts: list[Prompt]) -> list[float]:
        if self._chunked is None:
            return self._model.logits(prompts)
        work = [job.prepare(steps, self._chunked) for job, steps in batch]
        return self._chunked.read(
            [one for chunks, _ in work for one in chunks], [one for _, last in work for one in last]
        )

    @property
    def _tokens_computed(self) -> int:
        return self._prefixes.tokens_computed if self._prefixes else 0

    def _count(self, tokens: int, cost: int, seconds: float) -> None:
        prefixes = self._prefixes.prefix_stats if self._prefixes else CacheStats()
        self._counters.computed(tokens, seconds, self._max_batch_tokens, prefixes)
        self._speed.add(max(1, cost), seconds)

    def _try_smaller(self, batch: list[_Part], error: BaseException) -> bool:
        """Whether the batch did not fit into memory and its requests wait for smaller ones, as do all from now on."""
        whole = self._chunked is None and sum(len(steps) for _, steps in batch) == 1  # cannot be divided
        if whole or self._max_batch_tokens // 2 < self._least_batch_tokens or not is_out_of_memory(error):
            return False
        self._max_batch_tokens //= 2
        logger.warning("The device's memory is full; a batch has %d tokens from now on.", self._max_batch_tokens)
        for job, _ in batch:
            job.begin_again(self._max_chunk)
        error.__traceback__ = None  # its frames hold the tensors of the pass
        return_cached_memory()
        return True

    def _blame(self, batch: list[_Part], error: BaseException) -> None:
        """Runs each request of a failed batch alone, and fails the one that fails again."""
        if len(batch) > 1:
            for part in batch:
                self._score([part])
            return
        [(job, steps)] = batch
        logger.error("The model failed on a batch of %d steps", len(steps), exc_info=error)
        self._fail([job], error)


def _batch_tokens(model: Model) -> int:
    if model.info.device == "cpu":
        return MAX_BATCH_TOKENS
    return model.max_batch_tokens if isinstance(model, SizesBatches) else MAX_BATCH_TOKENS_GPU
