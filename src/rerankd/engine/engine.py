"""One queue, one thread, one future a request: many requests' pairs in shared batches.

Every request ends in exactly one of: logits, an error, cancelled. Knows no text and no dialect.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError

from rerankd.engine.batching import next_batch
from rerankd.engine.cache import ScoreCache, key_of
from rerankd.engine.model import Model
from rerankd.errors import Busy, InferenceError, Stopping
from rerankd.types import EncodedPair, Limits, ModelInfo, Pair

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 1536
"""On CPU: enough rows for the matrix units' full rate, few enough that activations stay in the caches."""

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
    ) -> None:
        self.keys = keys
        self.logits = logits
        self.pending = [(key, pair) for key, pair in dict(zip(keys, pairs, strict=True)).items() if key not in logits]
        self.num_computed = 0
        self.progress = progress
        self.future: Future[list[float]] = Future()

    @property
    def waiting(self) -> Sequence[tuple[bytes, EncodedPair]]:
        return self.pending[self.num_computed :]

    def add(self, logits: list[float]) -> None:
        for (key, _), logit in zip(self.waiting, logits, strict=False):
            self.logits[key] = logit
        self.num_computed += len(logits)
        self.finish_if_complete()
        try:
            if self.progress:
                self.progress(sum(key in self.logits for key in self.keys))
        except Exception:
            logger.exception("A progress callback failed; it is not called again")
            self.progress = None

    def finish_if_complete(self) -> None:
        if not self.waiting:
            self.settle([self.logits[key] for key in self.keys])

    def settle(self, outcome: list[float] | Exception) -> None:
        try:
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)
        except InvalidStateError:
            pass  # cancelled in the meantime: nobody waits for it


class Engine:
    """Runs a model on its own thread.

    Args:
        max_waiting: requests in the queue; one more is refused.
        score_cache_bytes: memory for logits that were computed before; 0 keeps none.
    """

    def __init__(self, model: Model, max_waiting: int = 256, score_cache_bytes: int = 0) -> None:
        self._model = model
        self._cache = ScoreCache(score_cache_bytes)
        self._max_waiting = max_waiting
        self._max_batch_tokens = MAX_BATCH_TOKENS if model.info.device == "cpu" else MAX_BATCH_TOKENS_GPU
        self._jobs: list[_Job] = []  # in the order of arrival; the first ones may be half done
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_per_token = 0.0
        self._thread = threading.Thread(target=self._run, name="rerankd-engine", daemon=True)
        self._thread.start()

    @property
    def info(self) -> ModelInfo:
        """The model that runs."""
        return self._model.info

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        """See `Model.encode`; runs on the caller's thread."""
        return self._model.encode(pairs, instruct, limits)

    def submit(
        self, pairs: Sequence[EncodedPair], progress: Callable[[int], None] | None = None
    ) -> Future[list[float]]:
        """Queues a request. The future gives one logit a pair, in order; cancelling it frees the work.

        Args:
            progress: called on the engine's thread with the number of pairs done so far.

        Raises:
            Busy: the queue is full.
            Stopping: `close` was called.

        The future fails with InferenceError if the model fails.
        """
        keys = [key_of(pair.token_ids) for pair in pairs]
        with self._changed:
            if self._stopping:
                raise Stopping("The server is shutting down; send the request again.", 5)
            known = {key: logit for key in dict.fromkeys(keys) if (logit := self._cache.get(key)) is not None}
            job = _Job(pairs, keys, known, progress)
            job.finish_if_complete()
            if job.future.done():
                return job.future
            self._drop_finished()
            if len(self._jobs) >= self._max_waiting:
                raise Busy(
                    f"The queue is full ({self._max_waiting} requests are waiting). Try again later.",
                    self._seconds_to_room(),
                )
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @property
    def num_waiting(self) -> int:
        """Requests that are queued or running."""
        return len(self._jobs)

    def close(self) -> None:
        """Refuses new requests, finishes those in the queue and ends the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def _seconds_to_room(self) -> int:
        """Until the oldest request is done, by the speed so far."""
        tokens = sum(pair.own_len for _, pair in self._jobs[0].waiting)
        return math.ceil(tokens * self._seconds_per_token)

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._score(batch)
            tokens = sum(pair.own_len for _, pair in batch)
            self._seconds_per_token = (time.monotonic() - started) / max(1, tokens)

    def _next_batch(self) -> list[tuple[_Job, EncodedPair]]:
        """Waits for work; empty when there is none and the engine stops."""
        with self._changed:
            while True:
                self._drop_finished()
                if self._jobs or self._stopping:
                    return next_batch(self._waiting(), self._max_batch_tokens)
                self._changed.wait()

    def _drop_finished(self) -> None:
        """Forgets what is answered, failed or cancelled."""
        self._jobs = [job for job in self._jobs if not job.future.done()]

    def _waiting(self) -> Iterator[tuple[tuple[_Job, EncodedPair], int]]:
        for job in self._jobs:
            for _, pair in job.waiting:
                yield (job, pair), pair.own_len

    def _score(self, batch: list[tuple[_Job, EncodedPair]]) -> None:
        try:
            logits = self._model.logits([pair for _, pair in batch])
            if len(logits) != len(batch):
                raise AssertionError(f"This is a bug: {len(logits)} logits for {len(batch)} prompts.")
        except Exception as error:
            self._blame(batch, error)
            return
        position = 0
        for job, pairs in _by_job(batch).items():
            part = logits[position : position + len(pairs)]
            with self._changed:
                self._cache.put_all(zip((key for key, _ in job.waiting), part, strict=False))
            job.add(part)
            position += len(pairs)

    def _blame(self, batch: list[tuple[_Job, EncodedPair]], error: Exception) -> None:
        """Fails the request that a batch failed on, and gives the others of the batch another try alone."""
        jobs = _by_job(batch)
        if len(jobs) > 1:
            for job, pairs in jobs.items():
                self._score([(job, pair) for pair in pairs])
            return
        logger.error("The model failed on a batch of %d prompts", len(batch), exc_info=error)
        failure = InferenceError("The model failed on this request; the server's log has the cause.")
        failure.__cause__ = error
        next(iter(jobs)).settle(failure)


def _by_job(batch: list[tuple[_Job, EncodedPair]]) -> dict[_Job, list[EncodedPair]]:
    """Groups a batch, in which a request's pairs lie side by side."""
    jobs: dict[_Job, list[EncodedPair]] = {}
    for job, pair in batch:
        jobs.setdefault(job, []).append(pair)
    return jobs
