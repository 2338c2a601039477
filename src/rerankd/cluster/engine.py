"""The engine of the front: one bounded queue, parts of calls to replicas, a lost part sent again. Knows no ray.

Has the surface of `engine.Engine`: every call ends in exactly one of logits, an error, cancelled. One thread with an
event loop of its own asks the replicas through a `Replicas`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Protocol

from rerankd.cluster.calls import ClusterCall, Part, next_call
from rerankd.cluster.counts import Counts
from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored, pack
from rerankd.cluster.parts import BATCHES
from rerankd.engine.cache import ScoreCache
from rerankd.engine.entrance import Entrance
from rerankd.engine.job import keys_of
from rerankd.errors import Busy, InferenceError, RerankdError
from rerankd.stats import EngineStats, ReplicaStats
from rerankd.types import Logits, ModelInfo, Prompt

logger = logging.getLogger(__name__)

PAUSES_S = (0.5, 10.0)
"""Before a lost part is sent again. Meanwhile, Ray Serve forgets the lost replica, and restarts its controller if that
ended, too. Then no more: a prompt that ends every replica that reads it must not end them for ever."""

AHEAD = 3
"""Parts that a replica may have: one is computed while the next ones wait there."""

WATCH_S = 1.0
"""Seconds between two checks of the number of replicas."""

PATIENCE_S = 60.0
"""How long calls wait while no replica runs: a new one has to load its model."""


class LostReplica(Exception):
    """A replica ended before it answered."""


def none_runs() -> Busy:
    """The answer to a call that no replica can score."""
    return Busy("No replica of the model runs now. Try again later.", 10)


class Replicas(Protocol):
    """The way to the replicas. Used in one event loop."""

    @property
    def described(self) -> Described:
        """The description that one of them gives of itself."""
        ...

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        """Has one of them score a part. Cancelling it frees the work.

        Raises:
            LostReplica: it ended before it answered.
            Busy: the replicas were ended, and no other ones are started.
        """
        ...

    async def num_running(self) -> int:
        """How many can be asked now."""
        ...

    def close(self) -> None:
        """Ends what was started for this process only."""
        ...


class ClusterEngine:
    """Scores prompts on replicas.

    Args:
        connect: opens the way to them. It runs on the engine's thread, which lives as long as the engine: the
            processes that ray starts end with the thread that started them.
        max_queue: calls in the queue; one more is refused.
        score_cache_bytes: memory for known logits; 0 keeps none.

    Raises:
        Exception: what `connect` raises.
    """

    failure: BaseException | None = None
    seconds_in_batch = 0.0  # Ray Serve asks the replicas

    def __init__(self, connect: Callable[[], Replicas], max_queue: int = 256, score_cache_bytes: int = 0) -> None:
        self._connect, self._entrance = connect, Entrance(max_queue)
        self._cache, self._counts = ScoreCache(score_cache_bytes), Counts()
        self._lock = threading.Lock()
        self._calls: list[ClusterCall] = []  # in the order of arrival
        self._outstanding = 0  # tokens of the parts that replicas have
        self._running = 1
        self._none_since: float | None = None  # by time.monotonic: since then no replica runs
        self._asking: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        opened: Future[Replicas] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="rerankd-cluster", daemon=True)
        self._thread.start()
        self._replicas = opened.result()

    @property
    def info(self) -> ModelInfo:
        """The model that the replicas run."""
        return self._replicas.described.info

    @property
    def max_batch_tokens(self) -> int:
        """The most tokens in a batch of a replica's engine."""
        return self._replicas.described.max_batch_tokens

    @property
    def num_queued(self) -> int:
        """Calls that are queued or running."""
        return len(self._calls)

    @property
    def num_replicas(self) -> int:
        """Those that ran a moment ago."""
        return self._running

    @property
    def stats(self) -> EngineStats:
        """Counters: of the replicas as far as they answered, and of this queue now."""
        with self._lock:
            running = sum(call.begun for call in self._calls)
            stats = self._counts.stats(running, len(self._calls) - running, self._cache.stats)
        return replace(stats, replicas=ReplicaStats(self._running, self._counts.lost, self._is_down))

    def watch(self, on_failure: Callable[[BaseException], None]) -> None:
        """It never fails as a whole: Ray Serve replaces replicas."""

    def refuse_after_fork(self) -> None:
        """Raises MadeBeforeFork in a child process."""
        self._entrance.refuse_after_fork()

    def submit(
        self,
        prompts: Sequence[Prompt],
        progress: Callable[[int], None] | None = None,
        priority: int = 0,
        owner: str = "",
        deadline: float | None = None,
    ) -> Future[Logits]:
        """See `Engine.submit`. `progress` is called on the engine's thread. At the deadline, parts that replicas still
        compute are given up; they have one batch each."""
        self.refuse_after_fork()
        keys = keys_of(prompts, owner)
        with self._lock:
            known = self._cache.known(keys, [len(prompt.token_ids) for prompt in prompts])
        call = ClusterCall(prompts, keys, known, progress, priority, owner)
        if call.finish_if_complete():
            return call.future
        call.divide(self.max_batch_tokens, max(1, self._running), None if deadline is None else 1)
        with self._lock:
            self._refuse(call)
            call.served = min((other.served for other in self._calls), default=0)
            self._calls.append(call)
        call.future.add_done_callback(lambda _: self._soon(self._forget, call))
        self._soon(self._fill)
        if deadline is not None:
            self._soon(self._end_at, call, deadline)
        return call.future

    def _refuse(self, call: ClusterCall) -> None:
        self._entrance.refuse_when_closed()
        if self._is_down:
            raise none_runs()
        waiting = [other.num_bytes for other in self._calls]
        self._entrance.refuse_when_full(len(call.keys), call.num_bytes, waiting, self._seconds_to_room)

    @property
    def _is_down(self) -> bool:
        return self._none_since is not None and time.monotonic() - self._none_since > PATIENCE_S

    def _seconds_to_room(self) -> float:
        return self._calls[0].tokens_left / (max(1, self._running) * self._counts.tokens_per_s)

    def close(self) -> None:
        """Refuses new calls, finishes those in the queue and ends the thread."""
        if self._entrance.is_forked:
            return
        with self._lock:
            self._entrance.closed = True
        self._soon(self._end_if_empty)
        self._thread.join()

    # On the engine's thread.

    def _run(self, opened: Future[Replicas]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            replicas = self._connect()
        except BaseException as error:
            opened.set_exception(error)
            self._loop.close()
            return
        opened.set_result(replicas)
        self._replicas = replicas
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            replicas.close()
            self._loop.close()

    async def _serve(self) -> None:
        watching = asyncio.ensure_future(self._watch())
        await self._ended.wait()
        watching.cancel()
        await asyncio.wait([watching])

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nothing is left to do
            pass

    def _end_if_empty(self) -> None:
        if self._entrance.closed and not self._calls:
            self._ended.set()

    def _fill(self) -> None:
        """Sends parts as long as the replicas have room."""
        room = max(1, self._running) * AHEAD * BATCHES * self.max_batch_tokens
        while (call := next_call(self._calls)) is not None:
            if self._outstanding and self._outstanding + call.parts[0].cost > room:
                return
            is_first = not call.begun
            part = call.take()
            if is_first:
                self._counts.began(call.queue_s)
            self._outstanding += part.cost
            self._start(call, self._ask(call, part), part.cost)

    def _start(self, call: ClusterCall, work: Coroutine[Any, Any, None], cost: int) -> None:
        task = self._loop.create_task(work)
        call.asking.add(task)
        self._asking.add(task)  # the loop keeps only a weak reference

        def done(_: asyncio.Task[None]) -> None:
            call.asking.discard(task)
            self._asking.discard(task)
            self._outstanding -= cost
            self._fill()

        task.add_done_callback(done)

    def _end_at(self, call: ClusterCall, deadline: float) -> None:
        if not call.future.done():
            call.alarm = self._loop.call_later(max(0.0, deadline - time.monotonic()), call.expire)

    def _forget(self, call: ClusterCall) -> None:
        """It is answered, failed or cancelled."""
        with self._lock:
            self._calls.remove(call)
        for task in call.asking:
            task.cancel()
        call.parts.clear()
        if call.alarm is not None:
            call.alarm.cancel()
        self._end_if_empty()

    async def _ask(self, call: ClusterCall, part: Part) -> None:
        try:
            answer = await self._answer(call, part)
        except RerankdError as error:
            call.settle(error)
            return
        except Exception as error:
            logger.exception("The replicas could not be asked")
            call.settle(_failure(error))
            return
        self._counts.computed(answer)
        found = call.add(part, answer.logits.tolist())
        with self._lock:
            self._cache.put_all(found)
        call.finish_if_complete()

    async def _answer(self, call: ClusterCall, part: Part) -> Scored:
        packed = pack(part.prompts, with_texts=self._replicas.described.reads_texts)
        attempts = 1 + len(PAUSES_S)
        for attempt, pause_s in enumerate((0.0, *PAUSES_S), 1):
            await asyncio.sleep(pause_s)
            try:
                answer = await self._replicas.score(packed, call.priority, call.owner)
            except LostReplica as error:
                cause = str(error)
            else:
                if isinstance(answer, Scored):
                    return answer
                if answer.kind == "model":
                    logger.error("The model failed on a part of %d documents: %s", len(part.prompts), answer.cause)
                    raise InferenceError("The model failed on this request; the server's log has the cause.")
                cause = answer.cause
            self._counts.lost += 1
            logger.warning("A replica did not answer (attempt %d of %d): %s", attempt, attempts, cause)
        raise InferenceError(f"{attempts} replicas ended while they computed this request.")

    async def _watch(self) -> None:
        """Follows the number of replicas; fails all calls if none comes back."""
        while not self._ended.is_set():  # in Python 3.11, asyncio.wait_for may lose a cancellation
            self._running = await self._replicas.num_running()
            if self._running:
                self._none_since = None
            elif self._none_since is None:
                self._none_since = time.monotonic()
                logger.error("No replica runs; calls wait for one for %.0f s", PATIENCE_S)
            if self._is_down:
                for call in [*self._calls]:
                    call.settle(none_runs())
            self._fill()
            await asyncio.sleep(WATCH_S)


def _failure(error: BaseException) -> InferenceError:
    failure = InferenceError("The replicas could not be asked; the server's log has the cause.")
    failure.__cause__ = error
    return failure
