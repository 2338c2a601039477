"""`rerankd bench --url`: a running server under load."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import textwrap
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter, validators

from rerankd.bench.load import CAPACITY_S, Latencies, Load, LoadResult, WorkloadResult, measure
from rerankd.bench.load_client import LoadClient
from rerankd.bench.workloads import WORKLOADS
from rerankd.cli.console import output_console
from rerankd.cli.options import COUNT, POSITIVE, SEVERAL, each
from rerankd.cli.progress import LoadingBar
from rerankd.cli.table import show_table
from rerankd.config import CLIENT_KEY
from rerankd.errors import SettingsError

NUM_CLIENTS = 8
DURATION_S = 60.0

SERVER = Group("A running server (--url)", sort_key=3)
ONE_RATE = Group("arrivals", show=False, validator=validators.MutuallyExclusive())
ONE_AMOUNT = Group("amount", show=False, validator=validators.MutuallyExclusive())


def _share(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in WORKLOADS:
        raise ValueError(f"{name!r} is not one of {', '.join(WORKLOADS)}")
    if not (count or "1").isdecimal() or count == "0":
        raise ValueError(f"{count!r} is not a whole number of at least 1")
    return name, int(count or "1")


MIX = Parameter(converter=each(_share), n_tokens=1, metavar="WORKLOAD=N", show_default=False)
LOAD_HELP = (
    "open loop at this share of the capacity, say 0.7, which a closed loop of --concurrency clients measures first, "
    f"for {CAPACITY_S:.0f} s"
)


@Parameter(name="*", group=SERVER)
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a running server is put under load.

    Attributes:
        mix: 'short=9 long=1': of each 10 requests, in random order, 9 are short and 1 is long (default: A)
        concurrency: clients of a closed loop (default: 8)
        rate: open loop: requests per second, with Poisson arrivals
        requests: number of requests to send
        duration: seconds for which requests are sent (default: 60)
        unloaded: requests of each workload that are sent alone first
        timeout: seconds to wait for an answer
        pid: the server's process, if on this machine: watch its memory
        api_key: the server's key (default: RERANKD_API_KEY)
    """

    mix: Annotated[tuple[tuple[str, int], ...], SEVERAL, MIX] = (("A", 1),)
    concurrency: Annotated[int | None, COUNT] = None
    rate: Annotated[float | None, POSITIVE, Parameter(metavar="R", group=(SERVER, ONE_RATE))] = None
    load: Annotated[float | None, POSITIVE, Parameter(metavar="SHARE", group=(SERVER, ONE_RATE), help=LOAD_HELP)] = None
    requests: Annotated[int | None, COUNT, Parameter(group=(SERVER, ONE_AMOUNT))] = None
    duration: Annotated[float | None, POSITIVE, Parameter(group=(SERVER, ONE_AMOUNT))] = None
    unloaded: Annotated[int, COUNT] = 5
    timeout: Annotated[float, POSITIVE] = 600.0
    pid: Annotated[int | None, COUNT, Parameter(metavar="PID")] = None
    api_key: Annotated[str | None, Parameter(metavar="KEY")] = None


AGAINST_SERVER = ServerOptions()


def bench_server(url: str, options: ServerOptions, seed: int | None, *, as_json: bool) -> int:
    """Measures and prints.

    Raises:
        SettingsError: options that contradict each other.
        RemoteError: see `measure`.
    """
    if options.rate and options.concurrency:
        raise SettingsError("--concurrency is the number of clients of a closed loop; with --rate there is none.")
    load = Load(
        mix=dict(options.mix),
        # A new seed for each run: the server may still have the scores of the last one in its cache.
        seed=random.SystemRandom().randrange(1_000_000) if seed is None else seed,
        num_clients=options.concurrency or NUM_CLIENTS,
        rate=options.rate,
        share_of_capacity=options.load,
        num_requests=options.requests,
        duration_s=options.duration or DURATION_S,
        num_unloaded=options.unloaded,
        pid=options.pid,
    )
    key = options.api_key or os.environ.get(CLIENT_KEY)
    result = asyncio.run(_measure(url, key, options.timeout, load))
    if as_json:
        print(json.dumps({"url": url, "load": dataclasses.asdict(load), **dataclasses.asdict(result)}, indent=2))
    else:
        _print(load, result)
    return 0


async def _measure(url: str, key: str | None, timeout_s: float, load: Load) -> LoadResult:
    with LoadingBar() as bar:
        async with LoadClient(url, key, timeout_s) as client:
            return await measure(client, load, bar)


def _print(load: Load, result: LoadResult) -> None:
    numbers = (
        *("requests", "errors", "documents/s", "tokens/s", "p50 s", "p95 s", "p99 s"),
        *("alone p50", "alone p95", "p95 ratio"),
    )
    show_table(("workload", *numbers), map(_cells, result.workloads), numbers)
    console = output_console()
    for line in _remarks(load, result):
        console.print(f"[dim]{line}", soft_wrap=True)


def _cells(row: WorkloadResult) -> list[str]:
    rates = [f"{row.documents_per_s:.2f}", f"{row.tokens_per_s:.0f}"]
    ratio = "–" if row.p95_ratio is None else f"{row.p95_ratio:.1f}"
    alone = _seconds(row.unloaded)[:2]
    return [row.workload, str(row.requests), _errors(row.errors), *rates, *_seconds(row.loaded), *alone, ratio]


def _seconds(latencies: Latencies) -> list[str]:
    return ["–" if s is None else f"{s:.3f}" for s in (latencies.p50_s, latencies.p95_s, latencies.p99_s)]


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} × {error}" for error, count in errors.items()) or "0"


def _remarks(load: Load, result: LoadResult) -> list[str]:
    """The lines below the table."""
    how = (
        f"closed loop, {load.num_clients} clients"
        if result.rate is None
        else f"open loop, {result.rate:#.3g} requests/s"
    )
    if capacity := result.capacity:
        how += (
            f", {load.share_of_capacity:.0%} of {capacity.requests_per_s:#.3g} that {load.num_clients} clients reached "
            f"in {capacity.elapsed_s:.1f} s ({capacity.requests} requests, errors: {_errors(capacity.errors)})"
        )
    answered = f"{result.requests_per_s:#.3g} requests/s answered in {result.elapsed_s:.1f} s"
    lines = [f"{how}; {answered}; scored by {result.model}; seed {load.seed}"]
    sizes = (f"{row.workload} {row.documents} documents, {row.tokens:.0f} tokens" for row in result.workloads)
    lines.append(
        f"a request, as the server counts: {'; '.join(sizes)}; alone: {load.num_unloaded} requests each, first"
    )
    if result.warned:
        first = textwrap.shorten(result.warning, 160, placeholder=" …")
        lines.append(f"{result.warned} answers came with a warning, the first: {first}")
    if memory := result.memory:
        tenths = " ".join(f"{value:.3f}" for value in memory.tenths_gb)
        lines.append(
            f"memory of process {load.pid}: {memory.start_gb:.3f} GB before, {memory.end_gb:.3f} after, peak since its "
            f"start {memory.peak_gb:.3f}; by tenths of the requests: {tenths}"
        )
    return lines
