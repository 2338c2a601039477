"""The model behind the server: loading, ready or failed, and the names it answers to; a fallback until it is there."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rerankd.errors import Loading, ModelError, ModelNotFound
from rerankd.ranking import Scorer
from rerankd.types import EngineStats, LoadProgress, ModelInfo

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60

RETRY_S, MAX_RETRY_S = 30.0, 900.0
"""Seconds until a model that could not be had is tried again: the first pause, which doubles, and the longest."""

HANDOVER_S = 60.0
"""Seconds in which calls that were prepared for the old model may still be submitted to it."""

ALIASES = ("qwen3-rerank", "gte-rerank", "gte-rerank-v2")
"""DashScope's names; some of its clients send one whatever they are told."""

QWEN3_RERANKERS = tuple(f"Qwen/Qwen3-Reranker-{size}" for size in ("0.6B", "4B", "8B"))


class Engine(Protocol):
    """What the server asks an engine about."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def num_queued(self) -> int: ...

    @property
    def max_batch_tokens(self) -> int: ...

    @property
    def stats(self) -> EngineStats: ...

    def watch(self, on_failure: Callable[[BaseException], None]) -> None: ...


class Decodes(Protocol):
    """The way back from token ids."""

    def decode(self, token_ids: Sequence[int]) -> str: ...


class LocalScorer(Scorer, Protocol):
    """A scorer over an engine in this process, `engine.scorer.EngineScorer`."""

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
        model: the setting; under `auto` the server answers to every Qwen3-Reranker's name.
        aliases: further names.
        retry: makes the engine in whose place a fallback answers, or raises; None: the fallback stays.
    """

    def __init__(
        self,
        start: Callable[[LoadProgress], LocalScorer],
        model: str,
        aliases: tuple[str, ...],
        retry: Callable[[], LocalScorer] | None = None,
    ) -> None:
        self._start, self._retry = start, retry
        self._closing = threading.Event()
        self._auto = model == "auto"
        self._aliases = aliases
        self._scorer: LocalScorer | None = None
        self._stage, self._share = "starting", 0.0
        self._started = time.monotonic()
        self.failure: Exception | None = None  # why nothing can be answered any more
        self.stopping = False  # set once the process was asked to end

    def load(
        self, on_failure: Callable[[], None], accept: Callable[[Sequence[str]], None] = lambda names: None
    ) -> None:
        """Starts loading and returns at once. Both are called on the loading thread.

        Args:
            accept: given the model's names before anything is answered; what it raises is a failure to load.
        """
        threading.Thread(target=self._load, args=(on_failure, accept), name="rerankd-loader", daemon=True).start()

    def _load(self, on_failure: Callable[[], None], accept: Callable[[Sequence[str]], None]) -> None:
        try:
            scorer = self._start(self._progress)
            accept(self._names_of(scorer))
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
        accept: Callable[[Sequence[str]], None],
    ) -> None:
        """Tries for the model that was asked for until it is there. Calls that run end on the fallback."""
        pause_s = RETRY_S
        while not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, MAX_RETRY_S)
            try:
                scorer = retry()
                accept(self._names_of(scorer))
            except Exception as error:  # whatever it is, the fallback goes on
                logger.warning("%s still answers; the next try is in %.0f s: %s", fallback.info.name, pause_s, error)
                continue
            scorer.engine.watch(lambda error: self._fail(error, on_failure))
            self._scorer = scorer
            logger.warning("%s answers from now on, no longer %s", scorer.info.name, fallback.info.name)
            self._closing.wait(HANDOVER_S)
            fallback.close()
            return

    def _fail(self, error: BaseException, on_failure: Callable[[], None]) -> None:
        """The engine cannot go on."""
        self.failure = ModelError(f"The engine failed and cannot go on ({type(error).__name__}): see the log.")
        on_failure()

    def _progress(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._started = time.monotonic()
        self._stage, self._share = stage, share

    @property
    def progress(self) -> tuple[str, float]:
        """(what is being done, the share that is done, in [0, 1])."""
        return self._stage, self._share

    @property
    def ready(self) -> bool:
        """Whether requests can be answered."""
        return self._scorer is not None

    @property
    def engine(self) -> Engine:
        """The scorer's engine. Raises Loading."""
        return self.scorer.engine

    @property
    def scorer(self) -> LocalScorer:
        """What ranks, once it is loaded.

        Raises:
            Loading: with a guess of the seconds left.
        """
        if self._scorer is None:
            elapsed = time.monotonic() - self._started
            left = elapsed / self._share - elapsed if self._share else 5
            message = f"The model is loading ({self._stage}, {self._share:.0%}). Try again later."
            raise Loading(message, min(math.ceil(left), MAX_RETRY_AFTER_S))
        return self._scorer

    def names(self) -> tuple[str, ...]:
        """Every name that the model answers to, its own first. Raises Loading."""
        return self._names_of(self.scorer)

    def _names_of(self, scorer: LocalScorer) -> tuple[str, ...]:
        own = scorer.info.name
        family = QWEN3_RERANKERS if self._auto else ()
        return tuple(dict.fromkeys((own, *self._aliases, *ALIASES, *family)))

    def check_name(self, name: str | None, *, any_name: bool) -> tuple[str, ...]:
        """Returns a warning where another model than the named one answers.

        Args:
            any_name: a name that the model does not answer to is answered all the same.

        Raises:
            Loading: it is not known yet.
            ModelNotFound: not one of `names`.
        """
        if name is None:
            return ()
        known = name in self.names()
        if not known and not any_name:
            raise ModelNotFound(name, self.names())
        own = self.scorer.info.name
        if not known or (name in QWEN3_RERANKERS and name not in (own, *self._aliases)):
            return (f"model substituted: {name[:200]} was asked for, {own} scored",)
        return ()

    def close(self) -> None:
        """Drains and ends the engine, if there is one."""
        self._closing.set()
        if self._scorer is not None:
            self._scorer.close()
