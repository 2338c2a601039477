"""One replica: an engine of its own, which Ray Serve starts, checks and ends. Knows no front and no other replica."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Callable

import numpy as np

from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored, unpack
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import InferenceError, Unavailable
from rerankd.version import __version__

logger = logging.getLogger(__name__)

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
        """The description of this replica."""
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
            if engine.failure is not None:
                return Failed("leaving", repr(engine.failure))
            return Failed("model", repr(error.__cause__ or error))
        except Unavailable as error:
            return Failed("leaving", str(error))
        return Scored(np.asarray(logits.values, np.float64), self._name, engine.stats)

    def check_health(self) -> None:
        """Called by Ray Serve again and again. Ends the process if the engine's thread has ended or a batch never ends.

        An error would do the same only after three checks and DRAIN_S for requests that nobody answers any more.
        """
        engine = self._scorer.engine
        if engine.failure is None and engine.seconds_in_batch <= STUCK_S:
            return
        logger.critical("The engine computes nothing any more (%r); the replica ends", engine.failure)
        os._exit(1)

    def __del__(self) -> None:
        """Ray Serve calls it after the last request."""
        if hasattr(self, "_scorer"):
            self._scorer.close()
