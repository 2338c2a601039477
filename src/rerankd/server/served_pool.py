"""One model behind the server that other servers score: its pool, its probes, its settings while they change."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rerankd.client.errors import RemoteError
from rerankd.errors import InvalidRequest, Loading
from rerankd.ranking import Encodes
from rerankd.server.served import Engine, ServedModel
from rerankd.stats import CacheStats, EngineStats, Histogram
from rerankd.types import ModelInfo
from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.local import AFTER_ALL, BEFORE_ALL, LocalEngine
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.probe import Verdict
from rerankd.upstreams.prober import Prober
from rerankd.upstreams.roster import Roster
from rerankd.upstreams.scorer import PoolScorer
from rerankd.upstreams.settings import ModelSettings
from rerankd.upstreams.tokens import open_tokens
from rerankd.upstreams.upstream import Upstream

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
"""Seconds between two checks of the settings file for a change."""

NO_VALUES = Histogram((math.inf,), (0,), 0.0)


class _Load:
    """A pool as the server asks an engine (`served.Engine`)."""

    seconds_in_batch = 0.0
    max_batch_tokens = 0

    def __init__(self, pool: Pool, info: ModelInfo) -> None:
        self._pool, self.info = pool, info

    @property
    def num_queued(self) -> int:
        return self._pool.running

    @property
    def stats(self) -> EngineStats:
        tokens = sum(member.stats.tokens for member in self._pool.members)
        running, waiting = self._pool.running - self._pool.waiting, self._pool.waiting
        return EngineStats(running, waiting, tokens, 0.0, NO_VALUES, NO_VALUES, CacheStats(), CacheStats())

    def watch(self, on_failure: Callable[[BaseException], None]) -> None:
        """It never fails as a whole."""


class _NoPrompts:
    """Prompts are made elsewhere."""

    def decode(self, token_ids: Sequence[int]) -> str:
        raise InvalidRequest("The model is not in this process: its tokens are not known here.")


class ServedScorer(PoolScorer):
    """A scorer over upstreams, with what the routes ask beside scores (`served.LocalScorer`)."""

    def __init__(self, pool: Pool, tokens: Encodes, is_exact: bool) -> None:
        super().__init__(pool, tokens, is_exact)
        self.engine: Engine = _Load(pool, self.info)
        self.prompts = _NoPrompts()

    def tokenize(self, text: str) -> list[int]:
        """Raises InvalidRequest: the tokens are not known here."""
        raise InvalidRequest("The model is not in this process: its tokens are not known here.")

    def close(self) -> None:
        """Nothing: `ServedPool` closes the connections."""


class ServedPool:
    """Serves a model through its upstreams; has the surface of `ServedModel`.

    Args:
        name: the model's; None: as the first upstream calls it, or `otherwise`.
        settings: the current ones, looked at again and again.
        max_waiting: calls that may wait for an upstream.
        local: the engine of this process, where it is an upstream as well.
    """

    def __init__(
        self,
        name: str | None,
        settings: Callable[[], ModelSettings],
        *,
        max_waiting: int = 256,
        offline: bool = False,
        local: ServedModel | None = None,
        otherwise: str = "qwen3-rerank",
    ) -> None:
        first = settings()
        self.settings = first  # in force
        self._settings, self._offline = settings, offline
        self._is_named = name is not None
        self.aliases = first.aliases
        self.pool = Pool(name or otherwise, max_waiting=max_waiting, counts_exactly=first.tokenizer is not None)
        self._local = local
        self._max_waiting = max_waiting
        self._scorer: ServedScorer | None = None
        self._prober = Prober(self.pool)
        self._task: asyncio.Task[None] | None = None
        self.failure: Exception | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that runs it; None before `load`."""
        return self._task.get_loop() if self._task else None

    def load(self, on_failure: Callable[[], None], accept: Callable[[str], None] = lambda name: None) -> None:
        """See `ServedModel.load`. Runs in the event loop that calls it; both are called there."""
        self._task = asyncio.get_running_loop().create_task(self._run(on_failure, accept))

    async def _run(self, on_failure: Callable[[], None], accept: Callable[[str], None]) -> None:
        settings = self._settings()
        try:
            tokens, is_exact = await asyncio.to_thread(open_tokens, settings.tokenizer, offline=self._offline)
            roster = Roster(self.pool, settings, self._local_engine(settings))
            await roster.resolve()
            if not self._is_named:
                self.pool.name = await _first_name(self.pool) or self.pool.name
            accept(self.pool.name)
        except Exception as error:
            self.failure = error
            on_failure()
            return
        self._scorer = ServedScorer(self.pool, tokens, is_exact)
        names = ", ".join(member.name for member in self.pool.members)
        logger.info("Ready: upstreams answer for %s: %s", self.pool.name, names)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._prober.run())
                group.create_task(roster.watch())
                group.create_task(self._follow(roster))
        finally:
            await roster.close()

    def _local_engine(self, settings: ModelSettings) -> LocalEngine | None:
        if self._local is None or settings.local is None:
            return None
        tier = BEFORE_ALL if settings.local == "first" else AFTER_ALL
        breaker = Breaker(self.pool.chance, self.pool.clock())
        return LocalEngine(self._local, tier, breaker, self.pool.wake, self._max_waiting)

    async def _follow(self, roster: Roster) -> None:
        """Takes new settings while it serves."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            settings = self._settings()
            if settings != self.settings:
                roster.apply(settings)
                self.settings = settings

    async def probe_now(self, name: str) -> Verdict:
        """Checks an upstream now.

        Raises:
            KeyError: there is no server of this name among the upstreams.
        """
        member = self.pool.member(name)
        if not isinstance(member, Upstream):
            raise KeyError(name)
        return await self._prober.probe(member)

    @property
    def progress(self) -> tuple[str, float]:
        """See `ServedModel.progress`."""
        return "reading the tokenizer", 0.0

    @property
    def ready(self) -> bool:
        """Whether calls are passed on. Does not wait for the upstreams."""
        return self._scorer is not None

    @property
    def engine(self) -> Engine:
        """Raises Loading."""
        return self.scorer.engine

    @contextmanager
    def lease(self) -> Iterator[ServedScorer]:
        """See `ServedModel.lease`. Raises Loading."""
        yield self.scorer

    @property
    def scorer(self) -> ServedScorer:
        """Raises Loading."""
        if self._scorer is None:
            raise Loading("The upstreams are being read. Try again later.", 1)
        return self._scorer

    def close(self) -> None:
        """Ends the probes, and begins to close the connections."""
        if self._task is not None:
            self._task.cancel()

    async def closed(self) -> None:
        """Waits until they are closed."""
        if self._task is not None:
            await asyncio.wait([self._task])


async def _first_name(pool: Pool) -> str | None:
    """The name of the first model that the first upstream lists; it is asked for that model from then on."""
    for member in pool.members:
        if not isinstance(member, Upstream):
            continue
        try:
            status, content = await member.get("/v1/models", 2.0)
            name = json.loads(content)["data"][0]["id"] if status == 200 else None
        except (RemoteError, ValueError, LookupError, TypeError):
            continue
        if isinstance(name, str) and name:
            return name[:200]
    return None
