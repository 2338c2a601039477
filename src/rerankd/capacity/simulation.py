"""Calls through fronts, a database, a network and replicas: a simulation of discrete events. Pure, seeded.

A call is tokenised by a front, reserved in the database, divided as `cluster/` divides it, and its parts go to the
replica with fewer requests of two chosen at random, as Ray Serve does. It is answered when its last part is back.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from rerankd.capacity.assumptions import SHARED_TOKENS, TEMPLATE_TOKENS, Front, Replica, Surroundings
from rerankd.capacity.load import Call
from rerankd.capacity.replica import SimulatedReplica
from rerankd.cluster.parts import costs_of, cut, num_parts
from rerankd.types import Prompt

SHARED = tuple(range(SHARED_TOKENS))


@dataclass(frozen=True, slots=True)
class System:
    """The simulated system."""

    replicas: int
    replica: Replica
    fronts: int = 1
    front: Front = field(default_factory=Front)
    around: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a load.

    Attributes:
        latencies: seconds of each call, in the order of the calls.
        ended: when the last one was answered.
        busy: the share of the time until the last arrival that each kind of resource worked, by name; over 1 where it
            had more work than time.
        tokens: computed by all replicas.
        ranked: (when, documents) of each part that came back, in the order of time.
    """

    latencies: Sequence[float]
    ended: float
    busy: dict[str, float]
    tokens: int
    ranked: Sequence[tuple[float, int]]


class _Line:
    """A resource that works on one thing after the other."""

    def __init__(self) -> None:
        self._free = self.busy_s = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When work that arrives now is done."""
        self._free = max(now, self._free) + seconds
        self.busy_s += seconds
        return self._free


class _Simulation:
    def __init__(self, system: System, calls: Sequence[Call], seed: int) -> None:
        self._system, self._calls = system, calls
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, str, int]] = []  # time, order of equal times, kind, which
        self._count = 0
        self._replicas = [SimulatedReplica(system.replica) for _ in range(system.replicas)]
        self._fronts = [_Line() for _ in range(system.fronts)]
        self._networks = [_Line() for _ in range(system.fronts)]
        self._database = _Line()
        self._parts: list[tuple[int, int, Sequence[Prompt]]] = []  # call, replica, prompts
        self._left = [0] * len(calls)  # parts of each call
        self._answered = [0.0] * len(calls)
        self._ranked: list[tuple[float, int]] = []

    def run(self) -> Outcome:
        for number, call in enumerate(self._calls):
            self._at(call.arrives, "arrival", number)
        now = 0.0
        while self._events:
            now, _, kind, which = heappop(self._events)
            getattr(self, f"_{kind}")(now, which)
        last = self._calls[-1].arrives
        return Outcome(
            [answered - call.arrives for answered, call in zip(self._answered, self._calls, strict=True)],
            now,
            {
                "replicas": sum(one.busy_s for one in self._replicas) / len(self._replicas) / last,
                "fronts": sum(one.busy_s for one in self._fronts) / len(self._fronts) / last,
                "network": sum(one.busy_s for one in self._networks) / len(self._networks) / last,
                "database": self._database.busy_s / last,
            },
            sum(one.tokens for one in self._replicas),
            self._ranked,
        )

    def _at(self, time: float, kind: str, which: int) -> None:
        self._count += 1
        heappush(self._events, (time, self._count, kind, which))

    def _arrival(self, now: float, number: int) -> None:
        documents, system = self._calls[number].documents, self._system
        tokens, at = sum(documents), number % system.fronts
        size = tokens * (system.around.text_bytes + system.around.id_bytes)
        read = self._networks[at].take(now, size / system.around.network_bytes_per_s)
        prepared = self._fronts[at].take(read, system.front.seconds(len(documents), tokens))
        self._at(self._database.take(prepared, system.around.database_s), "prepared", number)

    def _prepared(self, now: float, number: int) -> None:
        prompts = [
            Prompt("", "", range(tokens + TEMPLATE_TOKENS), 0, tokens, prefix=SHARED)
            for tokens in self._calls[number].documents
        ]
        costs = costs_of(prompts)
        wanted = num_parts(sum(costs), self._system.replica.max_batch_tokens, self._system.replicas)
        for start, end in cut(costs, wanted):
            self._left[number] += 1
            at = self._choose()
            self._replicas[at].outstanding += 1
            self._parts.append((number, at, prompts[start:end]))
            self._at(now + self._system.around.hop_s, "part", len(self._parts) - 1)

    def _choose(self) -> int:
        """The replica with fewer requests of two at random."""
        if len(self._replicas) == 1:
            return 0
        one, other = self._rng.sample(range(len(self._replicas)), 2)
        return one if self._replicas[one].outstanding <= self._replicas[other].outstanding else other

    def _part(self, now: float, which: int) -> None:
        _, at, prompts = self._parts[which]
        self._replicas[at].add(which, prompts)
        if self._replicas[at].is_idle:
            self._begin(now, at)

    def _begin(self, now: float, at: int) -> None:
        seconds = self._replicas[at].begin()
        if seconds is not None:
            self._at(now + seconds, "batch", at)

    def _batch(self, now: float, at: int) -> None:
        for which in self._replicas[at].end():
            self._at(now + self._system.around.hop_s, "back", which)
        self._begin(now, at)

    def _back(self, now: float, which: int) -> None:
        number, at, prompts = self._parts[which]
        self._ranked.append((now, len(prompts)))
        self._replicas[at].outstanding -= 1
        self._left[number] -= 1
        if not self._left[number]:
            self._answered[number] = now


def simulate(system: System, calls: Sequence[Call], seed: int = 0) -> Outcome:
    """Answers every call. The same arguments give the same outcome.

    Args:
        calls: at least one, in the order of arrival.
    """
    return _Simulation(system, calls, seed).run()
