"""The engine of this process as an upstream: a tier of its own, before or after the servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from rerankd.ranking import Prepared, Scorer
from rerankd.types import Ranking, TokenCounts
from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.member import Member, Scored, Slots, Task

LOCAL = "local"
"""Its name."""

GRACE_S = 0.25
"""The engine itself ends a call at its deadline; this bounds what comes after it."""

BEFORE_ALL, AFTER_ALL = -1, 1_000_000
"""Tiers."""


class Engine(Protocol):
    """A model that this process serves."""

    @property
    def ready(self) -> bool:
        """Whether it can answer."""
        ...

    def lease(self) -> AbstractContextManager[Scorer]:
        """Its scorer, which stays open until the block ends."""
        ...


class LocalEngine(Member):
    """An engine in this process; it was checked when it was loaded.

    Args:
        on_release: called when a call has ended.
        concurrency: calls at a time.
    """

    def __init__(
        self, engine: Engine, tier: int, breaker: Breaker, on_release: Callable[[], None], concurrency: int
    ) -> None:
        super().__init__()
        self.name, self.tier, self.weight, self.timeout_s = LOCAL, tier, 1.0, float("inf")
        self.breaker, self.slots = breaker, Slots(concurrency, on_release)
        self.grace_s = GRACE_S
        self.reads_instruct = True  # the engine itself warns if it reads none
        self._engine = engine
        self.breaker.state = "closed"

    def may_be_asked(self, now: float) -> bool:
        """See `Member.may_be_asked`."""
        return self._engine.ready and super().may_be_asked(now)

    def state(self, now: float) -> str:
        """See `Member.state`."""
        return super().state(now) if self._engine.ready else "unknown"

    @property
    def model(self) -> str | None:
        """The served model."""
        if not self._engine.ready:
            return None
        with self._engine.lease() as scorer:
            return scorer.info.name

    async def score(self, task: Task) -> Scored:
        """See `Member.score`."""
        with self._engine.lease() as scorer:
            async with self.slots:
                prepared = await asyncio.to_thread(scorer.prepare, task.prepared.request)
                ranking = await scorer.rank(prepared)
        usage = ranking.usage
        billed = None
        if usage.text_tokens != prepared.usage.text_tokens:  # a deadline left some
            billed = TokenCounts(usage.total_tokens or 0, usage.text_tokens or 0)
        return Scored(ranking.scores, ranking.model, usage, ranking.warnings, billed)

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """See `Member.highlight`."""
        with self._engine.lease() as scorer:
            async with self.slots:
                return await scorer.highlight(prepared, ranking)

    async def close(self) -> None:
        """Does nothing: the served model ends its engine."""
