"""An event loop whose time passes only while replicas compute, and replicas that compute by that time: no processor
is measured, and the same calls give the same seconds on any machine."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Sequence

import numpy as np

from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored
from rerankd.engine.counters import Counters
from rerankd.stats import CacheStats
from rerankd.testing import INFO


class VirtualLoop(asyncio.SelectorEventLoop):
    """Does not wait for its timers: it sets its clock to the next one.

    Attributes:
        working: while it is 0, nothing happens and real time passes.
    """

    def __init__(self) -> None:
        self.now, self.working = 0.0, 0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0 or not self._loop.working:
            return super().select(timeout)
        if ready := super().select(0):
            return ready
        self._loop.now += timeout
        return []


class VirtualReplicas:
    """Implements `cluster.engine.Replicas`: of two that are drawn, the one with fewer parts gets the next, as in Ray
    Serve. Each computes one part after the other.

    Args:
        slowness: of each replica, as a factor of its seconds.
        seconds_per_token: of a replica with slowness 1.
        hop_s: of a part on its way to a replica, and the same back.

    Attributes:
        tokens: that each has computed.
    """

    def __init__(self, loop: VirtualLoop, slowness: Sequence[float], seconds_per_token: float, hop_s: float) -> None:
        self.described = Described(INFO, "", 512, False, "", 0)
        self.tokens = [0] * len(slowness)
        self._loop, self._slowness = loop, slowness
        self._seconds_per_token, self._hop_s = seconds_per_token, hop_s
        self._parts = [0] * len(slowness)
        self._computing = [asyncio.Lock() for _ in slowness]
        self._chance = random.Random(7)
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """Lets them compute what they were sent. Called from any thread."""
        self._loop.call_soon_threadsafe(self._begun.set)

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        await self._begun.wait()
        self._loop.working += 1
        place = min(self._chance.sample(range(len(self._parts)), min(2, len(self._parts))), key=self._parts.__getitem__)
        self._parts[place] += 1
        tokens = len(part.rests) + sum(map(len, part.prefixes))
        try:
            await asyncio.sleep(self._hop_s)
            async with self._computing[place]:
                await asyncio.sleep(tokens * self._seconds_per_token * self._slowness[place])
            await asyncio.sleep(self._hop_s)
        finally:
            self._parts[place] -= 1
            self._loop.working -= 1
        self.tokens[place] += tokens
        logits = part.counts[:, 1].astype(np.float64)
        return Scored(logits, str(place), Counters().stats(0, 0, CacheStats()))

    async def num_running(self) -> int:
        return len(self._parts)

    def close(self) -> None:
        pass
