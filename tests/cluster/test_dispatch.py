"""How parts spread over replicas, in virtual time: the front's queue and its parts, replicas that count seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from rerankd.cluster.engine import ClusterEngine
from rerankd.types import Prompt
from support.virtual_time import VirtualLoop, VirtualReplicas

SECONDS_PER_TOKEN = 0.002 / 100
HOP_S = 0.0075
"""15 ms there and back, the most that is expected of Ray Serve on two cores (docs/deploy/ray.md)."""

Spread = tuple[float, list[int]]
"""(virtual seconds until all calls are answered, tokens that each replica has computed)"""


def spread(monkeypatch: pytest.MonkeyPatch, slowness: Sequence[float], calls: int) -> Spread:
    """Calls of 10 to 100 documents that wait together."""
    loop = VirtualLoop()
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: loop)
    replicas = VirtualReplicas(loop, slowness, SECONDS_PER_TOKEN, HOP_S)
    engine = ClusterEngine(lambda: replicas, max_queue=calls)
    try:
        asking = [engine.submit(prompts(call, 10 + 10 * (call % 10))) for call in range(calls)]
        replicas.begin()
        for call, one in enumerate(asking):
            values = one.result(60).values
            assert values == [100 + i for i in range(10 + 10 * (call % 10))]
        return loop.now, replicas.tokens
    finally:
        engine.close()


def prompts(call: int, number: int) -> list[Prompt]:
    query = (call, *range(19))
    return [Prompt("", "", (*query, *range(i, i + 280)), 20, 100 + i, (), query) for i in range(number)]


def test_r3_eight_replicas_do_the_work_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    alone_s, [tokens] = spread(monkeypatch, [1], 100)
    assert alone_s == pytest.approx(tokens * SECONDS_PER_TOKEN, rel=0.01), "the hop is hidden behind the work"
    for number in (2, 4, 8):
        seconds, done = spread(monkeypatch, [1] * number, 100)
        share = sum(done) * SECONDS_PER_TOKEN / (number * seconds)
        assert share >= 0.95, f"{number} replicas: {share:.1%} of linear"


def test_r4_a_slow_replica_gets_its_share_by_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, (slow, *fast) = spread(monkeypatch, [5, 1, 1, 1], 200)
    tokens = slow + sum(fast)
    assert slow / tokens <= 0.2 / 3.2 * 1.25, f"{slow / tokens:.1%}; equal shares would be 25 %"
    assert seconds <= 1.2 * tokens * SECONDS_PER_TOKEN / 3.2, "and it does not hold up the others"
