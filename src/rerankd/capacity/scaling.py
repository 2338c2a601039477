"""How a system grows: documents a second at full load, and in time, by the number of replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rerankd.capacity.load import Mix
from rerankd.capacity.plan import Row, fronts_for, row
from rerankd.capacity.simulation import System, simulate

OVERLOAD = 1.3
"""More than all replicas can do, so that none waits for work."""

CALLS_EACH = 8
"""Simulated calls a replica, at least FEW in all."""

FEW = 400

STEPS = 5
"""Steps of the search for a rate in [LOWEST, 1] of the work that replicas can do."""

LOWEST = 0.4


@dataclass(frozen=True, slots=True)
class Growth:
    """One number of replicas, with the fronts that they need.

    Attributes:
        full: documents a second while no replica waits.
        full_share: of the same for one replica, times their number.
        in_time: the row of the highest rate at which the P95 is kept; None: of no rate that was tried.
    """

    full: float
    full_share: float
    in_time: Row | None


def growth(system: System, mix: Mix, numbers: Sequence[int], p95_s: float | None, seed: int = 0) -> Iterator[Growth]:
    """The growth to each number of replicas; the first number should be 1.

    Args:
        system: its numbers of replicas and fronts are not read.
        p95_s: None: only at full load.
    """
    one = 0.0
    for number in numbers:
        rate = work_rate(system, mix) * number
        grown = replace(system, replicas=number, fronts=fronts_for(system.front, mix, OVERLOAD * rate))
        full = full_load(grown, mix, OVERLOAD * rate, seed)
        one = one or full / number
        yield Growth(full, full / number / one, None if p95_s is None else _in_time(grown, mix, rate, p95_s, seed))


def full_load(system: System, mix: Mix, documents_per_s: float, seed: int = 0) -> float:
    """Documents a second that are ranked of those that arrive, without the beginning and the end."""
    calls = mix.calls(documents_per_s, max(FEW, CALLS_EACH * system.replicas), seed)
    outcome = simulate(system, calls, seed)
    begin, end = 0.4 * calls[-1].arrives, 0.9 * calls[-1].arrives
    return sum(documents for when, documents in outcome.ranked if begin <= when < end) / (end - begin)


def work_rate(system: System, mix: Mix) -> float:
    """Documents a second of one replica that always works."""
    calls = Mix(mix.sizes).calls(1e-3, 50, 0)
    outcome = simulate(replace(system, replicas=1, fronts=1), calls)
    return sum(len(call.documents) for call in calls) / (outcome.busy["replicas"] * calls[-1].arrives)


def _in_time(system: System, mix: Mix, rate: float, p95_s: float, seed: int) -> Row | None:
    low, high, best = LOWEST, 1.0, None
    for _ in range(STEPS):
        share = (low + high) / 2
        number = max(2 * FEW, CALLS_EACH * system.replicas)
        tried = row(system, mix, share * rate, num_calls=number, seed=seed)
        if tried.p95_s <= p95_s:
            low, best = share, tried
        else:
            high = share
    return best
