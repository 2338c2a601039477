"""One replica: an engine of its own, which Ray Serve starts, checks and ends. Knows no front and no other replica."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable

import numpy as np

from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored, unpack
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import InferenceError, Unavailable
from rerankd.version import __version__

STUCK_S = 600
"""A batch that runs for longer never ends; see `server/status.py`."""


class Replica:
    """The class of the deployment.

    Args:
        start: loads the model; an error fails the deployment.
        settings: what it was deployed with, as text.
    """

    def __init__(self, start: Callable[[], EngineScorer], settings: str) -> None:
        self._scorer = start()
        self._settings = settings
        self._name = uuid.uuid4().hex

    async def describe(self) -> Described:
        """What runs here."""
        info, engine = self._scorer.info, self._scorer.engine
        reads_texts = info.kind not in ("qwen3", "qwen2")
        return Described(info, self._settings, engine.max_batch_tokens, reads_texts, __version__, os.getpid())

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        """The logits of a part. Cancelling it frees the work."""
        engine = self._scorer.engine
        try:
            future = engine.submit(unpack(part), None, priority, owner)
            logits = await asyncio.wrap_future(future)
        except InferenceError as error:
            return Failed("model", repr(error.__cause__ or error))
        except Unavailable as error:
            return Failed("leaving", str(error))
        return Scored(np.asarray(logits.values, np.float64), self._name, engine.stats)

    def check_health(self) -> None:
        """Called by Ray Serve again and again; three errors in a row end the replica.

        Raises:
            RuntimeError: the engine's thread has ended, or one batch never ends.
        """
        engine = self._scorer.engine
        if engine.failure is not None:
            raise RuntimeError(f"The engine has failed: {engine.failure!r}")
        if (seconds := engine.seconds_in_batch) > STUCK_S:
            raise RuntimeError(f"One batch has run for {seconds:.0f} s.")

    def __del__(self) -> None:
        """Ray Serve calls it after the last request."""
        if hasattr(self, "_scorer"):
            self._scorer.close()
