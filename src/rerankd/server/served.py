"""One model behind the server: loading, ready or failed, with a fallback until it is there. Knows no other model."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rerankd.errors import Loading, ModelError
from rerankd.ranking import Scorer
from rerankd.stats import EngineStats
from rerankd.types import LoadProgress, ModelInfo

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60

RETRY_S, MAX_RETRY_S = 30.0, 900.0
"""Seconds until the server tries again to load a missing model: the first pause, which doubles, and the longest."""


class Engine(Protocol):
    """The state of an engine, as the server reads it."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def num_queued(self) -> int: ...

    @property
    def seconds_in_batch(self) -> float: ...

    @property
    def max_batch_tokens(self) -> int: ...

    @property
    def stats(self) -> EngineStats: ...

    def watch(self, on_failure: Callable[[BaseException], None]) -> None: ...


class Decodes(Protocol):
    """Decodes token ids."""

    def decode(self, token_ids: Sequence[int]) -> str: ...


class LocalScorer(Scorer, Protocol):
    """A scorer as the routes use it: over an engine in this process (`engine.scorer.EngineScorer`) or upstreams."""

    @property
    def engine(self) -> Engine: ...

    @property
    def prompts(self) -> Decodes: ...

    def tokenize(self, text: str) -> list[int]: ...

    def close(self) -> None: ...


class ServedModel:
    """Loads an engine on a thread of its own.

    Args:
        start: makes the engine; raises ModelError or SettingsError.
        retry: makes the engine that a fallback replaces, or raises; None: the fallback stays.
    """

    aliases: tuple[str, ...] = ()
    pool = None

    def __init__(
        self,
        start: Callable[[LoadProgress], LocalScorer],
        retry: Callable[[], LocalScorer] | None = None,
    ) -> None:
        self._start, self._retry = start, retry
        self._closing = threading.Event()
        self._scorer: LocalScorer | None = None
        self._leases: Counter[int] = Counter()  # calls that use a scorer, by its id
        self._released = threading.Condition()
        self._stage, self._share = "starting", 0.0
        self._started = time.monotonic()
        self.failure: Exception | None = None  # the reason why it answers nothing any more

    def load(self, on_failure: Callable[[], None], accept: Callable[[str], None] = lambda name: None) -> None:
        """Starts loading and returns at once. Both are called on the loading thread.

        Args:
            accept: called with the model's name before the first answer; its exception is a failure to load.
        """
        threading.Thread(target=self._load, args=(on_failure, accept), name="rerankd-loader", daemon=True).start()

    def _load(self, on_failure: Callable[[], None], accept: Callable[[str], None]) -> None:
        try:
            scorer = self._start(self._progress)
            accept(scorer.info.name)
        except Exception as error:
            self.failure = error
            on_failure()
            return
        scorer.engine.watch(lambda error: self._fail(error, on_failure))
        self._scorer = scorer
        if scorer.info.is_fallback and self._retry is not None:
            self._replace(scorer, self._retry, on_failure, accept)

    def _replace(
        self,
        fallback: LocalScorer,
        retry: Callable[[], LocalScorer],
        on_failure: Callable[[], None],
        accept: Callable[[str], None],
    ) -> None:
        """Tries to load the requested model until it succeeds. Running calls finish on the fallback."""
        pause_s = RETRY_S
        while not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, MAX_RETRY_S)
            try:
                scorer = retry()
                accept(scorer.info.name)
            except Exception as error:  # the fallback answers after any error
                logger.warning("%s still answers; the next try is in %.0f s: %s", fallback.info.name, pause_s, error)
                continue
            scorer.engine.watch(lambda error: self._fail(error, on_failure))
            self._scorer = scorer
            logger.warning("%s answers from now on, no longer %s", scorer.info.name, fallback.info.name)
            with self._released:
                self._released.wait_for(lambda: not self._leases[id(fallback)])
            fallback.close()
            return

    def _fail(self, error: BaseException, on_failure: Callable[[], None]) -> None:
        """Records that the engine has failed."""
        self.failure = ModelError(f"The engine failed and cannot go on ({type(error).__name__}): see the log.")
        on_failure()

    def _progress(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._started = time.monotonic()
        self._stage, self._share = stage, share

    @property
    def progress(self) -> tuple[str, float]:
        """(the stage of loading, the completed share, in [0, 1])."""
        return self._stage, self._share

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self._scorer is not None

    @property
    def engine(self) -> Engine:
        """The scorer's engine. Raises Loading."""
        return self.scorer.engine

    @contextmanager
    def lease(self) -> Iterator[LocalScorer]:
        """The scorer, which stays open until the block ends, also if another takes its place. Raises Loading."""
        scorer = self.scorer
        with self._released:
            self._leases[id(scorer)] += 1
        try:
            yield scorer
        finally:
            with self._released:
                self._leases[id(scorer)] -= 1
                self._released.notify_all()

    @property
    def scorer(self) -> LocalScorer:
        """The scorer, once it is loaded.

        Raises:
            Loading: with a guess of the seconds left.
        """
        if self._scorer is None:
            elapsed = time.monotonic() - self._started
            left = elapsed / self._share - elapsed if self._share else 5
            message = f"The model is loading ({self._stage}, {self._share:.0%}). Try again later."
            raise Loading(message, min(math.ceil(left), MAX_RETRY_AFTER_S))
        return self._scorer

    def close(self) -> None:
        """Drains and ends the engine, if there is one."""
        self._closing.set()
        if self._scorer is not None:
            self._scorer.close()
