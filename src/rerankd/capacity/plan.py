"""How many replicas and fronts answer a load in time: the smallest number that a simulation finds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rerankd.capacity.assumptions import CACHED_TOKENS, SHARED_TOKENS, TEMPLATE_TOKENS, Front
from rerankd.capacity.load import Mix
from rerankd.capacity.simulation import System, simulate
from rerankd.errors import InvalidRequest

NUM_CALLS = 2_000
"""Simulated calls of one row; the first tenth warms up."""

MOST_REPLICAS = 10_000

FULL = 0.98
"""Share of the time that replicas work at most: no P95 holds beyond."""

FRONT_SHARE = 0.7
"""Another front is added before one works for more than this share of the time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One number of replicas under a load.

    Attributes:
        documents_per_s: the load.
        p50_s, p95_s, p99_s: of a call.
        busy: by kind of resource, see `simulation.Outcome`.
        full_at: documents a second at which each kind works all the time, by kind.
    """

    replicas: int
    fronts: int
    documents_per_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    busy: Mapping[str, float]
    full_at: Mapping[str, float]


class NotReachable(InvalidRequest):
    """No number of replicas answers in that time.

    Attributes:
        alone: a call without others, on any number of replicas.
    """

    def __init__(self, p95_s: float, alone: Row) -> None:
        super().__init__(
            f"No number of replicas answers in {p95_s:g} s: 5 % of the calls take {alone.p95_s:.3g} s or more even "
            "when they are alone. Use a faster replica (a GPU, --dtype int8), smaller calls or a later deadline."
        )
        self.alone = alone


def row(system: System, mix: Mix, documents_per_s: float, *, num_calls: int, seed: int = 0) -> Row:
    """The behaviour of a system under a load."""
    calls = mix.calls(documents_per_s, num_calls, seed)
    outcome = simulate(system, calls, seed)
    latencies = sorted(outcome.latencies[num_calls // 10 :])

    def at(share: float) -> float:
        return latencies[min(len(latencies) - 1, math.ceil(share * len(latencies)) - 1)]

    full_at = {kind: documents_per_s / busy if busy else math.inf for kind, busy in outcome.busy.items()}
    return Row(system.replicas, system.fronts, documents_per_s, *(at(0.5), at(0.95), at(0.99)), outcome.busy, full_at)


def fronts_for(front: Front, mix: Mix, documents_per_s: float) -> int:
    """The fronts that a load needs."""
    per_document = front.seconds(1, round(mix.tokens)) - front.call_s + front.call_s / mix.documents
    return max(1, math.ceil(documents_per_s * per_document / FRONT_SHARE))


def busy_replicas(system: System, mix: Mix, documents_per_s: float) -> float:
    """As many as the work alone fills: with fewer, the queue grows for ever."""
    own = mix.tokens + TEMPLATE_TOKENS - SHARED_TOKENS + (SHARED_TOKENS - CACHED_TOKENS) / mix.documents
    return documents_per_s * own * system.replica.token_s


def plan(system: System, mix: Mix, documents_per_s: float, p95_s: float, seed: int = 0) -> list[Row]:
    """Rows of growing numbers of replicas, the least of them that is enough last.

    Args:
        system: its numbers of replicas and fronts are not read.

    Raises:
        NotReachable: calls are too slow even alone.
        InvalidRequest: it would take more than MOST_REPLICAS.
    """
    # With fewer the queue only grows, and a simulation of it takes long.
    least = max(1, math.ceil(busy_replicas(system, mix, documents_per_s) / FULL))
    system = replace(system, fronts=fronts_for(system.front, mix, documents_per_s))
    alone = _alone(system, mix, seed)
    if alone.p95_s > p95_s:
        raise NotReachable(p95_s, alone)
    rows: dict[int, Row] = {}

    def is_enough(replicas: int) -> bool:
        if replicas not in rows:
            grown = replace(system, replicas=replicas)
            rows[replicas] = row(grown, mix, documents_per_s, num_calls=NUM_CALLS, seed=seed)
        return rows[replicas].p95_s <= p95_s

    high = least
    while not is_enough(high):
        if high >= MOST_REPLICAS:
            raise InvalidRequest(f"More than {MOST_REPLICAS:,} replicas would be needed: is the rate right?")
        high = min(MOST_REPLICAS, max(high + 1, high * 5 // 4))
    low = max((number for number in rows if number < high), default=least - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return [rows[number] for number in sorted(rows) if number <= high]


def _alone(system: System, mix: Mix, seed: int) -> Row:
    """Calls so rare that none waits, and replicas enough for every part."""
    most = max(documents for documents, _ in mix.sizes)
    tokens = most * (mix.tokens + TEMPLATE_TOKENS)
    replicas = max(2, math.ceil(tokens / system.replica.max_batch_tokens))
    longest_s = tokens * system.replica.token_s + system.front.seconds(most, round(tokens)) + 1
    rare = Mix(mix.sizes)
    return row(replace(system, replicas=replicas), rare, rare.documents / (100 * longest_s), num_calls=400, seed=seed)
