"""An upstream as its pool sees it: its breaker, its work and its counts. Sends nothing by itself."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType

from rerankd.engine.counters import Spread
from rerankd.ranking import Prepared
from rerankd.stats import Histogram
from rerankd.types import Ranking, Score, TokenCounts, Usage
from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.choice import Candidate

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Buckets of the seconds of an attempt."""

RESTING = "resting"
"""The state of an upstream that answers, but said "later"."""


class Slots:
    """The requests that an upstream may have at a time, of all calls; one is held in `async with`."""

    def __init__(self, number: int, on_release: Callable[[], None]) -> None:
        self.number = number
        self.used = 0
        self._semaphore = asyncio.Semaphore(number)
        self._on_release = on_release

    async def __aenter__(self) -> None:
        await self._semaphore.acquire()
        self.used += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.used -= 1
        self._semaphore.release()
        self._on_release()


@dataclass(slots=True)
class Stats:
    """The counts of one upstream since the start.

    Attributes:
        outcomes: of its attempts, by kind: `answered`, or a kind of `outcomes.Kind`.
        tokens: that it was paid for: as it counts them, else as we do.
        cost: in the currency of its settings.
        differences: calls whose tokens it counts otherwise than this server; differs: the last one is one of them.
        others: calls that it answered with another model than the first upstream's.
        last_error: a sentence without an address and without a key; empty before the first.
        last_probe: the verdict of the last probe.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    cost: float = 0.0
    differences: int = 0
    differs: bool = False
    others: int = 0
    last_error: str = ""
    last_probe: str = ""
    _seconds: Spread = field(default_factory=lambda: Spread(SECONDS))

    def took(self, seconds: float) -> None:
        """Counts the seconds until an attempt was answered."""
        self._seconds.add(seconds)

    @property
    def seconds(self) -> Histogram:
        return self._seconds.histogram


@dataclass(frozen=True, slots=True)
class Task:
    """The request of one attempt.

    Attributes:
        request_id: the same in every attempt of a call.
        hops: servers that passed it on.
        left_s: seconds until the deadline of the call; None if its caller wants all documents scored.
    """

    prepared: Prepared
    request_id: str
    hops: int
    left_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """The result of one attempt: a score for every document, in the call's order.

    billed: what was computed before the call's deadline; None: all of it.
    """

    scores: tuple[Score, ...]
    model: str | None
    usage: Usage
    warnings: tuple[str, ...] = ()
    billed: TokenCounts | None = None


class Member(ABC):
    """One upstream of a pool.

    Attributes:
        name: shown in headers and metrics.
        outstanding: tokens of the calls that it works on; calls: their number.
        reads_instruct: whether an instruct changes its scores.
        timeout_s: of one attempt.
        counts_texts: whether it reports query_tokens × documents + Σ document_tokens, as this server bills.
        grace_s: after a deadline, an answer with what was scored by then is waited for so long.
    """

    name: str
    tier: int
    weight: float
    timeout_s: float
    reads_instruct: bool
    counts_texts: bool = False
    grace_s: float = 0.0
    breaker: Breaker
    slots: Slots

    def __init__(self) -> None:
        self.outstanding = 0
        self.calls = 0
        self.stats = Stats()

    def may_be_asked(self, now: float) -> bool:
        """Whether a call may go there, if a slot is free."""
        return self.breaker.may_be_asked(now)

    @property
    def is_full(self) -> bool:
        """Whether a call would wait there: each has one request at least."""
        return max(self.calls, self.slots.used) >= self.slots.number

    def state(self, now: float) -> str:
        """The breaker's state, or RESTING."""
        closed = self.breaker.state == "closed"
        return RESTING if closed and now < self.breaker.rests_until else self.breaker.state

    @property
    def candidate(self) -> Candidate:
        """As `choice.choose` sees it."""
        return Candidate(self.name, self.tier, self.weight, self.outstanding)

    @property
    @abstractmethod
    def model(self) -> str | None:
        """The model that scores there, if it is known."""

    @property
    def hidden(self) -> tuple[str, ...]:
        """Texts that no reply and no log may contain: its host and its key."""
        return ()

    def cost_of(self, tokens: int, search_units: int) -> float:
        """The cost of an answer, in the currency of its settings."""
        return 0.0

    @abstractmethod
    async def score(self, task: Task) -> Scored:
        """Scores every document of a call.

        Raises:
            RemoteError: it did not.
            RerankdError: an engine in this process did not.
        """

    async def highlight(self, prepared: Prepared, ranking: Ranking) -> Ranking:
        """See `ranking.Scorer.highlight`; another server is not asked for it."""
        return replace(ranking, warnings=(*ranking.warnings, "highlight ignored: another server scored"))

    @abstractmethod
    async def close(self) -> None:
        """Closes its connections."""
