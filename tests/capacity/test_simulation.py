"""The simulation: the engine's own batches, the queue of the textbook, and no loss where replicas are added."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import wait
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.capacity import plan as plan_module
from rerankd.capacity.assumptions import CACHED_TOKENS, SHARED_TOKENS, TEMPLATE_TOKENS, Front, Replica, Surroundings
from rerankd.capacity.load import Call, Mix
from rerankd.capacity.plan import NotReachable, fronts_for, plan, row
from rerankd.capacity.replica import SimulatedReplica
from rerankd.capacity.scaling import growth
from rerankd.capacity.simulation import System, simulate
from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.testing import FakeModel
from rerankd.types import Prompt

NOTHING = Surroundings(hop_s=0, text_bytes=0, id_bytes=0, database_s=0)
NO_FRONT = Front(0, 0, 0)

calls_of = st.lists(
    st.tuples(st.floats(0, 0.5), st.lists(st.integers(1, 900), min_size=1, max_size=12)), min_size=1, max_size=25
)


def system(replicas: int, rate: float = 100, **more: object) -> System:
    return System(replicas, Replica.from_rate(rate, 300), **more)  # type: ignore[arg-type]


def arriving(gaps: Sequence[tuple[float, list[int]]]) -> list[Call]:
    now, calls = 0.0, []
    for gap, documents in gaps:
        now += gap
        calls.append(Call(now + 0.001, tuple(documents)))
    return calls


def prompts_of(lengths: Sequence[int], name: int) -> list[Prompt]:
    ids = [[name, place, *range(length)] for place, length in enumerate(lengths)]
    return [Prompt("q", f"{name} {one[1]}", one, 1, len(one) - 1) for one in ids]


def test_a_simulated_replica_makes_the_batches_of_the_engine() -> None:
    """The same requests wait in both when the first batch, of a request before, ends."""
    waiting = [prompts_of(lengths, name) for name, lengths in enumerate([[200, 30, 90], [20] * 30, [150] * 9, [5]])]
    first = prompts_of([10], 9)
    model = FakeModel(logit=lambda prompt: 0.0)
    model.gate.clear()
    engine = Engine(model)
    futures = [engine.submit(first)]
    assert model.entered.wait(60)
    futures += [engine.submit(prompts) for prompts in waiting]
    model.gate.set()
    wait(futures, 30)
    engine.close()
    simulated = SimulatedReplica(Replica(1.0, 0.0, MAX_BATCH_TOKENS))
    simulated.add(0, first)
    simulated.begin()
    for part, prompts in enumerate(waiting, 1):
        simulated.add(part, prompts)
    ended = simulated.end()
    sizes = []
    while simulated.begin() is not None:
        sizes.append(simulated.num_prompts)
        ended += simulated.end()
    assert sizes == [len(batch) for batch in model.batches[1:]] and sorted(ended) == [0, 1, 2, 3, 4]


@settings(max_examples=40, deadline=None)
@given(calls_of, st.integers(1, 7), st.integers(1, 3), st.integers(0, 99))
def test_every_call_is_answered_after_its_own_work_and_no_work_is_lost(
    gaps: list[tuple[float, list[int]]], replicas: int, fronts: int, seed: int
) -> None:
    calls, simulated = arriving(gaps), system(replicas, fronts=fronts)
    outcome = simulate(simulated, calls, seed)
    assert outcome == simulate(simulated, calls, seed)
    token_s, least = simulated.replica.token_s, TEMPLATE_TOKENS - SHARED_TOKENS
    for call, latency in zip(calls, outcome.latencies, strict=True):
        assert latency >= (max(call.documents) + least) * token_s + 2 * simulated.around.hop_s
    documents = [tokens for call in calls for tokens in call.documents]
    parts = len(outcome.ranked)
    assert sum(number for _, number in outcome.ranked) == len(documents)
    own = sum(documents) + least * len(documents)
    assert outcome.tokens == own + parts * (SHARED_TOKENS - CACHED_TOKENS)
    assert outcome.ended >= own * token_s / replicas


def test_one_document_a_call_waits_as_the_formula_says() -> None:
    """M/D/1: Poisson arrivals, equal work, one replica: the mean wait is rho / (2 (1 - rho)) of a service time
    (Pollaczek and Khinchine). Documents that fill a batch: none shares its batch with another."""
    mix = Mix([(1, 480)], spread=0.0)
    simulated = System(1, Replica(1e-3), front=NO_FRONT, around=NOTHING)
    service_s = (480 + TEMPLATE_TOKENS - CACHED_TOKENS) * 1e-3
    for rho in (0.3, 0.7):
        outcome = simulate(simulated, mix.calls(rho / service_s, 8_000, seed=1))
        waited = sum(outcome.latencies) / len(outcome.latencies) - service_s
        assert waited / service_s == pytest.approx(rho / (2 * (1 - rho)), rel=0.08)
        assert outcome.busy["replicas"] == pytest.approx(rho, rel=0.03)


@pytest.mark.parametrize("seed", range(2))
def test_more_replicas_are_never_worse(seed: int) -> None:
    mix = Mix([(20, 300), (5, 60), (60, 120)])
    rows = [row(system(replicas), mix, 250, num_calls=500, seed=seed) for replicas in (3, 4, 6, 12, 24)]
    for fewer, more in pairwise(rows):
        assert more.p95_s <= 1.02 * fewer.p95_s and more.busy["replicas"] <= 1.1 * fewer.busy["replicas"]


def test_from_1_to_8_to_64_replicas() -> None:
    shares = [one.full_share for one in growth(system(1, 8), Mix([(20, 300)]), (1, 8, 64), None)]
    assert shares[0] == 1 and shares[1] >= 0.95 and shares[2] >= 0.90


def test_a_single_front_is_full_before_many_replicas() -> None:
    mix = Mix([(20, 300)])
    crowded = row(system(40, 2300), mix, 20_000, num_calls=600)
    assert crowded.busy["fronts"] > 1 > crowded.busy["replicas"]
    fronts = fronts_for(Front(), mix, 20_000)
    roomy = row(system(40, 2300, fronts=fronts), mix, 20_000, num_calls=600)
    assert roomy.busy["fronts"] < 0.75 and roomy.p95_s < crowded.p95_s / 2


def test_a_plan_is_the_smallest_number_that_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "NUM_CALLS", 300)
    mix = Mix([(20, 300)])
    rows = plan(system(1), mix, 500, 0.5)
    answer, before = rows[-1], row(system(rows[-1].replicas - 1), mix, 500, num_calls=300)
    assert answer.p95_s <= 0.5 < before.p95_s
    assert [one.replicas for one in rows] == sorted(one.replicas for one in rows)


def test_a_time_that_no_number_of_replicas_reaches() -> None:
    with pytest.raises(NotReachable, match=r"even when they are alone") as refused:
        plan(system(1, 8), Mix([(20, 300)]), 500, 0.2)
    assert refused.value.alone.p95_s > 0.2


def test_threads_play_no_part() -> None:
    before = set(threading.enumerate())
    simulate(system(3), Mix([(4, 40)]).calls(50, 50, 0))
    assert set(threading.enumerate()) <= before
