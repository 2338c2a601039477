"""Engines around fake models that start in the processes of Ray's replicas."""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rerankd.cluster import replica as replica_module
from rerankd.cluster.packed import Failed, PackedPrompts, Scored
from rerankd.cluster.replica import Replica
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import ModelError
from rerankd.testing import INFO, FakeModel
from rerankd.types import Prompt, RerankRequest

ENCODER = replace(INFO, kind="cross-encoder")  # its replicas are given texts


class SleepingModel(FakeModel):
    """Its logit is the document's number. Sleeps for each prompt; for ever at "hang", the first time of all.

    The first process that finds a file "slow" in the folder takes it, and sleeps 5 times longer. Each leaves a byte for
    each of its prompts in a file of its own. It keeps none of its requests and batches, as a real model: the memory of
    a front is measured, and millions of prompts go through it.

    Args:
        seconds: of sleep for each prompt.
        folder: where the first one at "hang" leaves a mark.
    """

    def __init__(self, seconds: float, folder: Path) -> None:
        super().__init__(self._number, _tokens, ENCODER)
        self._seconds, self._folder = seconds, folder

    def encode(self, request: RerankRequest) -> list[Prompt]:
        prompts = super().encode(request)
        self.requests.clear()
        return prompts

    def logits(self, batch: Sequence[Prompt]) -> list[float]:
        logits = super().logits(batch)
        self.batches.clear()
        return logits

    def _number(self, prompt: Prompt) -> float:
        time.sleep(self._seconds * (5 if self._is_slow() else 1))
        if prompt.document.startswith("hang") and self._is_first():
            time.sleep(3600)
        return float(prompt.document.removeprefix("hang"))

    def _is_slow(self) -> bool:
        if not self._seconds:
            return False
        with (self._folder / f"{os.getpid()}.prompts").open("ab") as file:
            file.write(b".")
        mine = self._folder / f"{os.getpid()}.slow"
        try:
            (self._folder / "slow").rename(mine)
        except FileNotFoundError:
            pass
        return mine.exists()

    def _is_first(self) -> bool:
        try:
            (self._folder / "hung").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def _tokens(query: str, document: str) -> range:
    """Enough that few prompts make a batch; no prompt begins as another."""
    first = zlib.crc32(document.encode()) % 1_000_000
    return range(first, first + 300)


def start_sleeping(seconds: float, folder: Path, stuck_s: int = 600) -> EngineScorer:
    """stuck_s: a batch that runs for longer fails the replica's health check."""
    replica_module.STUCK_S = stuck_s  # in the replica's process
    model = SleepingModel(seconds, folder)
    return EngineScorer(Engine(model), model)


def fail_to_start() -> EngineScorer:
    raise ModelError("There is no such model.")


class GivesUpTwice(Replica):
    """Its first two parts are cancelled there, by nobody here: Ray has no answer to the first one then, and gives a
    cancellation for the second."""

    num_parts = 0

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        from ray.exceptions import TaskCancelledError

        self.num_parts += 1
        if self.num_parts <= 2:
            raise asyncio.CancelledError if self.num_parts == 1 else TaskCancelledError
        return await super().score(part, priority, owner)
