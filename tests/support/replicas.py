"""Replicas in the process of the test, without ray: the real class `Replica` over engines that the test makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rerankd.cluster.engine import LostReplica
from rerankd.cluster.packed import Described, Failed, PackedPrompts, Scored
from rerankd.cluster.replica import Replica
from rerankd.engine.scorer import EngineScorer


class LocalReplicas:
    """Implements `cluster.engine.Replicas`; a part goes to the replica with the fewest parts, as in Ray Serve.

    Args:
        lose: whether a part is lost on its way back, given the number of parts before it.

    Attributes:
        sent: the parts, in order.
    """

    def __init__(self, *starts: Callable[[], EngineScorer], lose: Callable[[int], bool] = lambda number: False) -> None:
        self.replicas = [Replica(start, "") for start in starts]
        self.sent: list[PackedPrompts] = []
        self.running = len(self.replicas)
        self._lose = lose
        self._busy = [0] * len(self.replicas)
        self.described: Described = asyncio.run(self.replicas[0].describe())

    async def score(self, part: PackedPrompts, priority: int, owner: str) -> Scored | Failed:
        number = len(self.sent)
        self.sent.append(part)
        place = min(range(len(self._busy)), key=self._busy.__getitem__)
        self._busy[place] += 1
        try:
            answer = await self.replicas[place].score(part, priority, owner)
        finally:
            self._busy[place] -= 1
        if self._lose(number):
            raise LostReplica("it was killed")
        return answer

    async def num_running(self) -> int:
        return self.running

    def close(self) -> None:
        for replica in self.replicas:
            replica.__del__()
