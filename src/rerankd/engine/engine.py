"""One queue, one thread, one future a request: many requests' pairs in shared batches.

Every request ends in exactly one of: logits, an error, cancelled. Knows no text and no dialect.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from itertools import islice

from rerankd.engine.batching import next_batch
from rerankd.engine.cache import ScoreCache, key_of
from rerankd.engine.counters import Counters
from rerankd.engine.model import Model, SharesPrefixes
from rerankd.errors import Busy, InferenceError, MadeBeforeFork, Stopping
from rerankd.types import CacheStats, EncodedPair, EngineStats, Limits, Logits, ModelInfo, Pair

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 512
"""On CPU: half of it is enough rows for the matrix units' full rate, and few enough that activations stay in the caches
and a request that comes in the middle of a batch waits a quarter of a second (0.6B, 2 cores)."""

MAX_BATCH_TOKENS_GPU = 16384


class _Job:
    """One request in the queue. A prompt that occurs twice, or whose logit is known, is not computed again.

    keys: of every pair, in order. logits: what is known of them. pending: the other prompts, each once.
    """

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        keys: list[bytes],
        logits: dict[bytes, float],
        progress: Callable[[int], None] | None,
        priority: int,
    ) -> None:
        self.keys = keys
        self.logits = logits
        self._cached = {index for index, key in enumerate(keys) if key in logits}
        self.priority = priority
        self.pending = [(key, pair) for key, pair in dict(zip(keys, pairs, strict=True)).items() if key not in logits]
        previous = [None, *(pair for _, pair in self.pending)]
        self._costs = [pair.cost_after(before) for (_, pair), before in zip(self.pending, previous, strict=False)]
        self.num_computed = 0
        self.arrived, self.running = time.monotonic(), False
        self.served = 0  # tokens; see batching.py
        self.progress = progress
        self.future: Future[Logits] = Future()

    @property
    def waiting(self) -> Sequence[tuple[bytes, EncodedPair]]:
        return self.pending[self.num_computed :]

    @property
    def costs(self) -> Sequence[int]:
        """Tokens to compute for each prompt that waits."""
        return self._costs[self.num_computed :]

    def take(self, count: int) -> list[EncodedPair]:
        """The next prompts, counted as served."""
        self.served += sum(self.costs[:count])
        return [pair for _, pair in self.waiting[:count]]

    def add(self, logits: list[float]) -> None:
        for (key, _), logit in zip(self.waiting, logits, strict=False):
            self.logits[key] = logit
        self.num_computed += len(logits)
        try:  # before the future is done: who waits for it may be gone right after
            if self.progress:
                self.progress(sum(key in self.logits for key in self.keys))
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self.progress = None
        self.finish_if_complete()

    def finish_if_complete(self) -> None:
        if not self.waiting:
            self.settle(Logits((self.logits[key] for key in self.keys), self._cached))

    def settle(self, outcome: Logits | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass  # cancelled in the meantime: nobody waits for it


_Part = tuple[_Job, list[EncodedPair]]
"""The prompts of one request in a batch."""


class Engine:
    """Runs a model on its own thread.

    Args:
        max_waiting: requests in the queue; one more is refused.
        score_cache_bytes: memory for logits that were computed before; 0 keeps none.
    """

    def __init__(self, model: Model, max_waiting: int = 256, score_cache_bytes: int = 0) -> None:
        self._model = model
        self._cache = ScoreCache(score_cache_bytes)
        self._counters = Counters()
        self._prefixes = model if isinstance(model, SharesPrefixes) else None
        self._max_waiting = max_waiting
        self._max_batch_tokens = MAX_BATCH_TOKENS if model.info.device == "cpu" else MAX_BATCH_TOKENS_GPU
        self._turn = 0
        self._jobs: list[_Job] = []  # in the order of arrival; the first ones may be half done
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_per_token = 0.0
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="rerankd-engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> ModelInfo:
        """The model that runs."""
        return self._model.info

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """See `Model.encode`; runs on the caller's thread."""
        self._refuse_after_fork()  # the tokenizer's threads are not in the child either
        return self._model.encode(pairs, instruct, limits)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """See `Model.text_of`."""
        return self._model.text_of(token_ids)

    def token_ids_of(self, text: str) -> list[int]:
        """See `Model.token_ids_of`."""
        return self._model.token_ids_of(text)

    def submit(
        self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None, priority: int = 0
    ) -> Future[Logits]:
        """Queues a request. The future gives one logit a pair, in order; cancelling it frees the work.

        Args:
            progress: called on the engine's thread with the number of pairs done so far.
            priority: while a request of a lower one waits, those of higher ones wait longer.

        Raises:
            Busy: the queue is full.
            Stopping: `close` was called.
            MadeBeforeFork: this is another process than the one that made the engine.

        The future fails with InferenceError if the model fails.
        """
        self._refuse_after_fork()
        keys = [key_of(pair) for pair in pairs]
        with self._changed:
            if self._stopping:
                raise Stopping("The server is shutting down; send the request again.", 5)
            job = _Job(pairs, keys, self._cache.known(keys, pairs), progress, priority)
            job.finish_if_complete()
            if job.future.done():
                return job.future
            self._drop_finished()
            if len(self._jobs) >= self._max_waiting:
                raise Busy(
                    f"The queue is full ({self._max_waiting} requests are waiting). Try again later.",
                    self._seconds_to_room(),
                )
            job.served = min((other.served for other in self._jobs), default=0)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @property
    def num_waiting(self) -> int:
        """Requests that are queued or running."""
        return len(self._jobs)

    @property
    def max_batch_tokens(self) -> int:
        """Tokens that are computed together, unless a single prompt has more."""
        return self._max_batch_tokens

    @property
    def stats(self) -> EngineStats:
        """What was done since the start, and what is in the queue."""
        with self._changed:
            queued = [job for job in self._jobs if not job.future.done()]
            running = sum(job.running for job in queued)
            return self._counters.stats(running, len(queued) - running, self._cache.stats)

    def close(self) -> None:
        """Refuses new requests, finishes those in the queue and ends the thread."""
        if self._is_forked:
            return  # nothing of it runs here, and its lock may be held for ever
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def _is_forked(self) -> bool:
        return os.getpid() != self._process

    def _refuse_after_fork(self) -> None:
        if self._is_forked:
            raise MadeBeforeFork

    def _seconds_to_room(self) -> int:
        """Until the oldest request is done, by the speed so far."""
        return math.ceil(sum(self._jobs[0].costs) * self._seconds_per_token)

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._score(batch)
            tokens = sum(len(pair.token_ids) - pair.shared_len for _, pairs in batch for pair in pairs)
            self._seconds_per_token = (time.monotonic() - started) / max(1, tokens)

    def _next_batch(self) -> list[_Part]:
        """Waits for work; empty when there is none and the engine stops."""
        with self._changed:
            while True:
                self._drop_finished()
                if self._jobs or self._stopping:
                    self._turn += 1
                    requests = [(job.priority, job.served, job.costs) for job in self._jobs]
                    counts = next_batch(requests, self._turn, self._max_batch_tokens)
                    return self._begin(
                        [(job, job.take(count)) for job, count in zip(self._jobs, counts, strict=True) if count]
                    )
                self._changed.wait()

    def _begin(self, batch: list[_Part]) -> list[_Part]:
        """Counts how long those requests waited whose first prompts are in the batch."""
        for job, _ in batch:
            if not job.running:
                job.running = True
                self._counters.began(time.monotonic() - job.arrived)
        return batch

    def _drop_finished(self) -> None:
        """Forgets what is answered, failed or cancelled."""
        self._jobs = [job for job in self._jobs if not job.future.done()]

    def _score(self, batch: list[_Part]) -> None:
        prompts = [pair for _, pairs in batch for pair in pairs]
        started = time.monotonic()
        try:
            logits = self._model.logits(prompts)
            if len(logits) != len(prompts):
                raise AssertionError(f"This is a bug: {len(logits)} logits for {len(prompts)} prompts.")
        except Exception as error:
            self._blame(batch, error)
            return
        prefixes = self._prefixes.prefix_stats if self._prefixes else CacheStats()
        self._counters.computed(prompts, time.monotonic() - started, self._max_batch_tokens, prefixes)
        rest = iter(logits)
        for job, pairs in batch:
            part = list(islice(rest, len(pairs)))
            with self._changed:
                self._cache.put_all(zip((key for key, _ in job.waiting), part, strict=False))
            job.add(part)

    def _blame(self, batch: list[_Part], error: Exception) -> None:
        """Fails the request that a batch failed on, and gives the others of the batch another try alone."""
        if len(batch) > 1:
            for part in batch:
                self._score([part])
            return
        [(job, pairs)] = batch
        logger.error("The model failed on a batch of %d prompts", len(pairs), exc_info=error)
        failure = InferenceError("The model failed on this request; the server's log has the cause.")
        failure.__cause__ = error
        job.settle(failure)
