"""Asks a running server as many clients would, and times the answers. Knows no engine and no JSON.

Closed loop: each client sends its next request when its last one is answered. Open loop: requests arrive as a Poisson
process whether or not the server keeps up, and a latency counts from the planned arrival, so that a stalled server or
client hides nothing ("coordinated omission", https://www.youtube.com/watch?v=lJ8ydIuPFeU).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rerankd.bench.load_client import LoadClient, Outcome
from rerankd.bench.memory import Memory, MemoryWatch
from rerankd.bench.percentile import percentile
from rerankd.bench.workloads import WORKLOADS, Workload
from rerankd.client.errors import RemoteError

CAPACITY_S = 20.0
"""The minimum duration of the closed loop that measures the capacity."""

ERROR_PAUSE_S = 0.1
"""The pause of a client of the closed loop after an error. Without it, the loop would measure the speed of refusals."""

Progress = Callable[[str, float], None]
"""Called with the name of the measurement and the completed share, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Load:
    """The load to generate.

    mix: how many requests of each workload a deck holds; decks are shuffled one by one, so shares are kept all along.
    num_clients: of the closed loop. rate: arrivals a second, which makes it an open loop. share_of_capacity: the rate
    as a share of the rate that a closed loop of `num_clients` reaches first; > 0. num_requests: to send; None: for
    duration_s. num_unloaded: requests of each workload that are timed alone first. pid: of the server, to watch its
    memory.
    """

    mix: Mapping[str, int]
    seed: int
    num_clients: int
    rate: float | None
    share_of_capacity: float | None
    num_requests: int | None
    duration_s: float
    num_unloaded: int
    pid: int | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """The result of a closed loop of whole decks. errors: requests by status or exception; they do not count."""

    requests_per_s: float
    requests: int
    elapsed_s: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Latencies:
    """The seconds of answered requests; None if there are none."""

    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class WorkloadResult:
    """The requests of one workload under load. documents, tokens: of an answered request, mean; the rates are over the
    whole run; p95_ratio: loaded over unloaded."""

    workload: str
    requests: int
    errors: dict[str, int]
    documents: int
    tokens: float
    documents_per_s: float
    tokens_per_s: float
    loaded: Latencies
    unloaded: Latencies
    p95_ratio: float | None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a run. model: the model that scored; rate: planned arrivals a second, None in a closed loop;
    elapsed_s: from the start to the last answer; requests_per_s: answered; warned: answers with a warning, of which
    `warning` is the first; memory: of the server."""

    model: str
    rate: float | None
    capacity: Capacity | None
    elapsed_s: float
    requests_per_s: float
    workloads: Sequence[WorkloadResult]
    warned: int
    warning: str
    memory: Memory | None


@dataclass(frozen=True, slots=True)
class _Request:
    workload: Workload
    query: str
    documents: list[str]


@dataclass(frozen=True, slots=True)
class _Sample:
    """latency_s: from when the request was due to its end, good or bad."""

    workload: Workload
    latency_s: float
    outcome: Outcome


_Note = Callable[[_Sample], None]
"""Called with each request that has ended, in the order of their ends."""


async def measure(client: LoadClient, load: Load, progress: Progress) -> LoadResult:
    """Unloaded, then the capacity if the rate is a share of it, then the load.

    Raises:
        RemoteError: the server cannot be reached or does not get ready; the first request of a workload, sent alone, is
            not answered; or none of those that measure the capacity.
        SettingsError: `load.pid` cannot be watched.
    """
    memory = MemoryWatch(load.pid) if load.pid else None
    await client.wait_until_ready(progress)
    unloaded = {name: await _unloaded(client, load, name, progress) for name in load.mix}
    capacity = None
    rate = load.rate
    if load.share_of_capacity is not None:
        capacity = await _capacity(client, load, progress)
        rate = load.share_of_capacity * capacity.requests_per_s

    samples, elapsed_s = await _under_load(client, load, rate, memory, progress)
    warnings = [sample.outcome.warning for sample in samples if sample.outcome.warning]
    return LoadResult(
        model=next((sample.outcome.model for sample in samples if sample.outcome.model), ""),
        rate=rate,
        capacity=capacity,
        elapsed_s=elapsed_s,
        requests_per_s=len(_answered(samples)) / elapsed_s,
        workloads=[_result(name, samples, unloaded[name], elapsed_s) for name in load.mix],
        warned=len(warnings),
        warning=warnings[0] if warnings else "",
        memory=memory.result() if memory else None,
    )


async def _under_load(
    client: LoadClient, load: Load, rate: float | None, memory: MemoryWatch | None, progress: Progress
) -> tuple[list[_Sample], float]:
    """(requests, seconds until the last one was answered); a rate makes it an open loop."""
    if memory:
        memory.look()
    samples: list[_Sample] = []
    started = time.perf_counter()

    def note(sample: _Sample) -> None:
        samples.append(sample)
        if memory:
            memory.look()
        done = len(samples) / load.num_requests if load.num_requests else _share_since(started, load.duration_s)
        progress("under load", done)

    seed = f"{load.seed}-load"
    if rate is not None:
        await _open_loop(client, _requests(load.mix, seed), _arrivals(load, rate), note)
    elif load.num_requests is not None:
        await _closed_loop(client, islice(_requests(load.mix, seed), load.num_requests), load.num_clients, note)
    else:
        await _closed_loop(client, _requests(load.mix, seed, load.duration_s), load.num_clients, note)
    return samples, time.perf_counter() - started


async def _unloaded(client: LoadClient, load: Load, name: str, progress: Progress) -> list[_Sample]:
    """One client alone, after a request that warms up."""
    requests = _requests({name: 1}, f"{load.seed}-unloaded-{name}")
    samples: list[_Sample] = []

    def note(sample: _Sample) -> None:
        samples.append(sample)
        progress(f"{name}, unloaded", len(samples) / (1 + load.num_unloaded))

    await _closed_loop(client, islice(requests, 1), 1, note)
    if error := samples[0].outcome.error:
        raise RemoteError(f"The server does not answer workload {name}: {error}: {samples[0].outcome.message}")
    await _closed_loop(client, islice(requests, load.num_unloaded), 1, note)
    return samples[1:]


async def _capacity(client: LoadClient, load: Load, progress: Progress) -> Capacity:
    """Runs whole decks only, so that long requests have their share. Waits for running requests at the end."""
    samples: list[_Sample] = []
    started = time.perf_counter()

    def note(sample: _Sample) -> None:
        samples.append(sample)
        progress("capacity", _share_since(started, CAPACITY_S))

    requests = _requests(load.mix, f"{load.seed}-capacity", CAPACITY_S)
    await _closed_loop(client, requests, load.num_clients, note)
    elapsed_s = time.perf_counter() - started
    errors = _errors(samples)
    if not (answered := _answered(samples)):
        raise RemoteError(f"None of {len(samples)} requests was answered while measuring the capacity: {errors}.")
    return Capacity(len(answered) / elapsed_s, len(samples), elapsed_s, errors)


async def _closed_loop(client: LoadClient, requests: Iterator[_Request], num_clients: int, note: _Note) -> None:
    async def work() -> None:
        for request in requests:  # one iterator for all: each worker takes the next request
            sample = await _send(client, request, time.perf_counter())
            note(sample)
            if sample.outcome.error:
                await asyncio.sleep(ERROR_PAUSE_S)

    async with asyncio.TaskGroup() as workers:
        for _ in range(num_clients):
            workers.create_task(work())


async def _open_loop(client: LoadClient, requests: Iterator[_Request], arrivals: Iterable[float], note: _Note) -> None:
    """arrivals: seconds from now, ascending."""
    started = time.perf_counter()

    async def send(request: _Request, due: float) -> None:
        note(await _send(client, request, due))

    async with asyncio.TaskGroup() as calls:
        for arrival, request in zip(arrivals, requests, strict=False):
            await asyncio.sleep(started + arrival - time.perf_counter())
            calls.create_task(send(request, started + arrival))


async def _send(client: LoadClient, request: _Request, due: float) -> _Sample:
    outcome = await client.rank(request.query, request.documents)
    return _Sample(request.workload, time.perf_counter() - due, outcome)


def _requests(mix: Mapping[str, int], seed: str, duration_s: float | None = None) -> Iterator[_Request]:
    """The same requests for the same seed. No two are equal: the server would answer a repeated one from its score
    cache. Ends with the first complete deck after the duration, if there is one."""
    rng = random.Random(seed)
    started = time.perf_counter()
    while duration_s is None or time.perf_counter() < started + duration_s:
        deck = [WORKLOADS[name] for name, count in mix.items() for _ in range(count)]
        rng.shuffle(deck)
        for workload in deck:
            yield _Request(workload, *workload.texts(rng))


def _arrivals(load: Load, rate: float) -> list[float]:
    """Seconds from the start, ascending: a Poisson process given its number of arrivals, so their times are uniform.
    Without that condition, 40 requests would come at the rate ± 16 %, which is not the requested load."""
    num_requests = load.num_requests or max(1, round(rate * load.duration_s))
    rng = random.Random(f"{load.seed}-arrivals")
    return sorted(rng.uniform(0, num_requests / rate) for _ in range(num_requests))


def _result(name: str, samples: Sequence[_Sample], alone: Sequence[_Sample], elapsed_s: float) -> WorkloadResult:
    mine = [sample for sample in samples if sample.workload.name == name]
    answered = _answered(mine)
    tokens = sum(sample.outcome.tokens for sample in answered)
    loaded, unloaded = _latencies(answered), _latencies(_answered(alone))
    return WorkloadResult(
        workload=name,
        requests=len(mine),
        errors=_errors(mine),
        documents=WORKLOADS[name].num_documents,
        tokens=tokens / max(1, len(answered)),
        documents_per_s=WORKLOADS[name].num_documents * len(answered) / elapsed_s,
        tokens_per_s=tokens / elapsed_s,
        loaded=loaded,
        unloaded=unloaded,
        p95_ratio=loaded.p95_s / unloaded.p95_s if loaded.p95_s and unloaded.p95_s else None,
    )


def _latencies(answered: Sequence[_Sample]) -> Latencies:
    if not answered:
        return Latencies(None, None, None)
    seconds = [sample.latency_s for sample in answered]
    return Latencies(percentile(seconds, 0.5), percentile(seconds, 0.95), percentile(seconds, 0.99))


def _answered(samples: Iterable[_Sample]) -> list[_Sample]:
    return [sample for sample in samples if not sample.outcome.error]


def _errors(samples: Iterable[_Sample]) -> dict[str, int]:
    return dict(Counter(sample.outcome.error for sample in samples if sample.outcome.error))


def _share_since(started: float, duration_s: float) -> float:
    return min(1.0, (time.perf_counter() - started) / duration_s)
