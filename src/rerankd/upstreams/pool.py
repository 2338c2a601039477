"""The upstreams of one model, and the one loop that asks them: attempts, retries, errors, warnings."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from rerankd.client.errors import RemoteError
from rerankd.client.retry import wait_s
from rerankd.errors import Busy, InvalidRequest, RerankdError, UpstreamFailed, UpstreamLoop, UpstreamTimeout
from rerankd.ranking import Prepared
from rerankd.types import DEFAULT_INSTRUCT, Ranking, Usage
from rerankd.upstreams.budget import RetryBudget
from rerankd.upstreams.choice import choose
from rerankd.upstreams.member import Member, Scored, Task
from rerankd.upstreams.outcomes import FAILURES, WORDS, Kind, kind_of, short_error, wanted_pause_s, words_for_caller

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3

MAX_HOPS = 3
"""Servers that may pass a call on. A server that is asked by another one does not retry by itself."""

MAX_DIFFERENCE = 0.01
"""The largest accepted difference between an upstream's count of tokens and ours, as a share of the larger count."""

WHOLE_DEADLINE = 0.9
"""A timeout is an upstream's fault if it had its own `timeout_s`, or at least this share of the model's deadline."""

FIRST_PROBES_S, PROBES_S = 10.0, 1.0
"""Seconds that a call waits for a probe where no upstream was ever checked, and where all of them failed."""


@dataclass(slots=True)
class _Call:
    """One call on its way through the upstreams."""

    task: Task
    deadline: float
    started: float
    tried: set[str] = field(default_factory=set)
    attempts: int = 0
    last: tuple[Kind, Exception] | None = None

    @property
    def has_own_instruct(self) -> bool:
        return self.task.prepared.request.instruct.rstrip(".") != DEFAULT_INSTRUCT


class Pool:
    """Ranks a model's calls through its upstreams.

    Args:
        name: the model's.
        deadline_s: of a whole call.
        max_waiting: calls that may wait for an upstream.
        same_model: see `ModelSettings`.
        counts_exactly: whether a call's tokens are those of the model's tokenizer.
        clock: seconds, monotonic.
        chance: a number in [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        deadline_s: float = 60.0,
        max_waiting: int = 256,
        same_model: bool = False,
        counts_exactly: bool = False,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.members: tuple[Member, ...] = ()
        self.deadline_s, self.max_waiting, self.same_model = deadline_s, max_waiting, same_model
        self.counts_exactly = counts_exactly
        self.clock, self.chance = clock, chance
        self.retries: Counter[str] = Counter()
        self.budget_empty = 0
        self.running = 0
        self._budget = RetryBudget(clock())
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls that wait for an upstream."""
        return len(self._waiters)

    def member(self, name: str) -> Member:
        """Raises KeyError: there is none of this name."""
        return {member.name: member for member in self.members}[name]

    def wake(self) -> None:
        """An upstream has a free slot, or may be asked again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    async def rank(self, prepared: Prepared) -> Ranking:
        """Asks one upstream after the other until one answers.

        Raises:
            InvalidRequest: an upstream found a mistake in the call.
            Busy: no upstream can be asked now.
            UpstreamFailed: those that were asked did not answer.
        """
        hops = prepared.request.hops
        if hops > MAX_HOPS:
            raise UpstreamLoop
        now = self.clock()
        deadline = min(now + self.deadline_s, prepared.request.deadline or math.inf)
        call = _Call(Task(prepared, uuid.uuid4().hex, hops), deadline, now)
        self._budget.add_call()
        self.running += 1
        try:
            while True:
                member = await self._next(call)
                scored = await self._attempt(member, call)
                if scored is not None:
                    return self._ranking(call, member, scored)
        finally:
            self.running -= 1

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """See `ranking.Scorer.highlight`: the upstream that scored does it, if it can."""
        for member in self.members:
            if member.name == ranking.upstream:
                ranking = await member.highlight(prepared, ranking)
        return ranking

    async def _next(self, call: _Call) -> Member:
        """The upstream to ask next, as soon as one can be asked.

        Raises:
            RerankdError: none can be, in time.
        """
        while True:
            now = self.clock()
            left = [member for member in self._allowed() if member.name not in call.tried]
            ready = [member for member in left if member.may_be_asked(now)]
            free = [member for member in ready if not member.is_full]
            if free:
                return self._choose(call, free)
            patience = self._patience(call, left, ready)
            if patience <= now:
                raise self._error(call)
            await self._wait(call, patience - now)

    def _choose(self, call: _Call, free: Sequence[Member]) -> Member:
        if call.has_own_instruct:
            free = [member for member in free if member.reads_instruct] or free
        request = call.task.prepared.request
        key = hashlib.blake2b(f"{request.instruct}\0{request.queries[0]}".encode(errors="replace")).digest()
        chosen = choose([member.candidate for member in free], key, self.chance)
        return next(member for member in free if member.name == chosen.name)

    def _patience(self, call: _Call, left: Sequence[Member], ready: Sequence[Member]) -> float:
        """Until when a call waits for an upstream that it has not tried."""
        if ready:
            return call.deadline  # for a slot
        states = {member.breaker.state for member in left}
        if call.attempts or not states - {"closed"}:  # the closed ones rest
            return -math.inf
        return min(call.deadline, call.started + (FIRST_PROBES_S if "unknown" in states else PROBES_S))

    async def _wait(self, call: _Call, seconds: float) -> None:
        if len(self._waiters) >= self.max_waiting:
            raise Busy(f"Too many calls wait for an upstream of {self.name}. Try again later.", 1)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def _attempt(self, member: Member, call: _Call) -> Scored | None:
        """Asks one upstream; None: ask another one.

        Raises:
            RerankdError: there is no use in another one.
        """
        tokens = call.task.prepared.usage.text_tokens
        started = self.clock()
        left_s = call.deadline - started
        task, grace_s = call.task, 0.0
        if task.prepared.request.deadline is not None:
            task, grace_s = replace(task, left_s=left_s), member.grace_s
        call.attempts += 1
        call.tried.add(member.name)
        member.outstanding += tokens
        member.calls += 1
        try:
            async with asyncio.timeout(max(0.0, min(member.timeout_s, left_s + grace_s))):
                scored = await member.score(task)
        except (RemoteError, RerankdError, TimeoutError) as error:
            kind = kind_of(error)
            is_its_fault = kind != "timeout" or left_s >= min(member.timeout_s, WHOLE_DEADLINE * self.deadline_s)
            self._note_failure(member, kind, error, is_its_fault)
            call.last = kind, error
            await self._before_retry(member, call, kind, error)
            return None
        finally:
            member.outstanding -= tokens
            member.calls -= 1
            self.wake()
        self._note_answer(member, scored, tokens, self.clock() - started)
        return scored

    def _note_answer(self, member: Member, scored: Scored, tokens: int, seconds: float) -> None:
        stats = member.stats
        stats.outcomes["answered"] += 1
        stats.took(seconds)
        paid = scored.usage.total_tokens or tokens
        stats.tokens += paid
        stats.cost += member.cost_of(paid, scored.usage.search_units or 0)
        member.breaker.succeeded(self.clock())
        if self.counts_exactly and member.counts_texts and scored.usage.total_tokens is not None:
            self._compare_counts(member, tokens, scored.usage.total_tokens)

    def _compare_counts(self, member: Member, ours: int, theirs: int) -> None:
        """An upstream that counts as we bill is a free check of our tokenizer. Logs the first call of a difference."""
        differs = abs(theirs - ours) > MAX_DIFFERENCE * max(ours, theirs)
        if differs and not member.stats.differs:
            words = "Upstream %s of %s counts %d tokens where this server counts %d: is tokenizer that of its model?"
            logger.warning(words, member.name, self.name, theirs, ours)
        member.stats.differs = differs
        member.stats.differences += differs

    def _note_failure(self, member: Member, kind: Kind, error: Exception, is_its_fault: bool) -> None:
        now, breaker, before = self.clock(), member.breaker, member.breaker.state
        member.stats.outcomes[kind] += 1
        if kind == "caller" or not is_its_fault:
            return
        member.stats.last_error = short_error(error)
        if kind in FAILURES:
            breaker.failed(now)
        elif kind == "full":
            breaker.rest(now, wanted_pause_s(error))
        elif kind == "refused":
            breaker.refuse(now)
        logger.info("Upstream %s of %s failed: %s", member.name, self.name, short_error(error))
        if breaker.state != before:
            log = logger.error if breaker.state == "refused" else logger.warning
            log("Upstream %s of %s is %s now: %s", member.name, self.name, breaker.state, short_error(error))

    async def _before_retry(self, member: Member, call: _Call, kind: Kind, error: Exception) -> None:
        """Takes a retry from the budget.

        Raises:
            RerankdError: the call ends.
        """
        if kind == "caller":
            words = words_for_caller(error, member.hidden)
            raise error if isinstance(error, InvalidRequest) else InvalidRequest(words)
        if kind == "loop":
            raise UpstreamLoop
        is_last = call.attempts >= MAX_ATTEMPTS or call.task.hops or (kind == "timeout" and call.attempts > 1)
        if is_last or self.clock() >= call.deadline:
            raise self._error(call)
        pause_s = 0.0
        if len(self._allowed()) == 1:
            if kind not in FAILURES or kind == "timeout":
                raise self._error(call)
            pause_s = wait_s(call.attempts - 1, None)
            call.tried.clear()
        elif not self._others(call):
            raise self._error(call)
        if not self._budget.take(self.clock()):
            self.budget_empty += 1
            raise self._error(call)
        self.retries[kind] += 1
        await asyncio.sleep(min(pause_s, max(0.0, call.deadline - self.clock())))

    def _others(self, call: _Call) -> bool:
        """Whether an upstream that this call has not tried may be asked."""
        now = self.clock()
        return any(member.may_be_asked(now) for member in self._allowed() if member.name not in call.tried)

    def _allowed(self) -> Sequence[Member]:
        """The upstreams that may answer a call of this model."""
        if not self.same_model:
            return self.members
        first = self.first_model
        return [member for member in self.members if member.model == first]

    @property
    def first_model(self) -> str | None:
        """The model of the first upstream of the lowest tier."""
        return min(self.members, key=lambda member: member.tier).model if self.members else None

    def _error(self, call: _Call) -> RerankdError:
        """The error for the caller after no upstream answered."""
        kind = call.last[0] if call.last else "full"
        if kind == "full":
            return Busy(f"No upstream of {self.name} can be asked now. Try again later.", self.retry_after_s())
        failed = UpstreamTimeout if kind == "timeout" else UpstreamFailed
        return failed(f"The upstream of {self.name} {WORDS[kind]}. Nothing was charged; try again.")

    def retry_after_s(self) -> int:
        """Seconds until an upstream may be asked again, rounded up, at least 1."""
        now = self.clock()
        return max(1, math.ceil(min((member.breaker.ready_at(now) - now for member in self._allowed()), default=1.0)))

    def _ranking(self, call: _Call, member: Member, scored: Scored) -> Ranking:
        prepared = call.task.prepared
        request, usage = prepared.request, scored.billed or prepared.usage
        ranked = sorted(scored.scores, key=lambda one: (not one.scored, -one.score, -(one.logit or 0.0), one.index))
        return Ranking(
            ranked=tuple(ranked[: request.top_n]),
            usage=Usage(usage.prompt_tokens, usage.text_tokens),
            warnings=(*prepared.warnings, *scored.warnings, *self._degraded(call, member, scored)),
            model=scored.model or self.name,
            scores=scored.scores,
            request_ids=(call.task.request_id,),
            upstream=member.name,
            attempts=call.attempts,
        )

    def _degraded(self, call: _Call, member: Member, scored: Scored) -> Iterable[str]:
        first = self.first_model
        if first and scored.model and scored.model != first:
            member.stats.others += 1
            yield f"another model scored: {scored.model} in place of {first}"
        if call.has_own_instruct and not member.reads_instruct:
            yield f"instruct ignored: {member.name} reads none"
