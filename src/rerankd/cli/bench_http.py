"""`rerankd bench --url`: a running server under load."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import random
import textwrap

from rich.table import Table

from rerankd.bench.load import CAPACITY_S, Latencies, Load, LoadResult, WorkloadResult, measure
from rerankd.bench.load_client import LoadClient
from rerankd.bench.workloads import WORKLOADS
from rerankd.cli.console import output_console
from rerankd.cli.progress import LoadingBar
from rerankd.errors import SettingsError

OPTIONS = ("mix", "concurrency", "rate", "load", "requests", "duration", "unloaded", "timeout", "pid", "api_key")
"""Those that mean nothing without --url."""

NUM_CLIENTS = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a running server (--url)")
    group.add_argument(
        "--mix",
        nargs="+",
        type=_share,
        default=[("A", 1)],
        metavar="WORKLOAD=N",
        help="'short=9 long=1': of each 10 requests, in random order, 9 are short and 1 is long (default: A)",
    )
    group.add_argument(
        "--concurrency", type=_count, metavar="N", help=f"clients of a closed loop (default: {NUM_CLIENTS})"
    )
    arrivals = group.add_mutually_exclusive_group()
    arrivals.add_argument(
        "--rate", type=_positive, metavar="R", help="open loop: Poisson arrivals, so many requests a second"
    )
    arrivals.add_argument(
        "--load",
        type=_positive,
        metavar="SHARE",
        help="open loop at this share of the capacity, say 0.7, which a closed loop of --concurrency clients measures "
        f"first, for {CAPACITY_S:.0f} s",
    )
    amount = group.add_mutually_exclusive_group()
    amount.add_argument("--requests", type=_count, metavar="N", help="how many requests to send")
    amount.add_argument(
        "--duration", type=_positive, default=60.0, metavar="S", help="seconds for which to send them (default: 60)"
    )
    group.add_argument(
        "--unloaded",
        type=_count,
        default=5,
        metavar="N",
        help="requests of each workload sent alone first (default: 5)",
    )
    group.add_argument("--timeout", type=_positive, default=600.0, metavar="S", help="for an answer (default: 600)")
    group.add_argument("--pid", type=_count, help="the server's process, if on this machine: watch its memory")
    group.add_argument("--api-key", default=os.environ.get("RERANKD_API_KEY"), help="the server's key")


def run(options: argparse.Namespace) -> int:
    """Measures and prints.

    Raises:
        SettingsError: options that contradict each other.
        RemoteError: see `measure`.
    """
    if options.rate and options.concurrency:
        raise SettingsError("--concurrency is the number of clients of a closed loop; with --rate there is none.")
    load = Load(
        mix=dict(options.mix),
        # A seed of its own for each run: the server may still know the scores of the last one.
        seed=random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed,
        num_clients=options.concurrency or NUM_CLIENTS,
        rate=options.rate,
        share_of_capacity=options.load,
        num_requests=options.requests,
        duration_s=options.duration,
        num_unloaded=options.unloaded,
        pid=options.pid,
    )
    result = asyncio.run(_measure(options, load))
    if options.json:
        print(
            json.dumps({"url": options.url, "load": dataclasses.asdict(load), **dataclasses.asdict(result)}, indent=2)
        )
    else:
        _print(load, result)
    return 0


async def _measure(options: argparse.Namespace, load: Load) -> LoadResult:
    with LoadingBar() as bar:
        async with LoadClient(options.url, options.api_key, options.timeout) as client:
            return await measure(client, load, bar)


def _share(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    if name not in WORKLOADS:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(WORKLOADS)}")
    return name, _count(count or "1")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        if (number := float(text)) > 0:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def _print(load: Load, result: LoadResult) -> None:
    console = output_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("workload")
    for name in ("requests", "errors", "documents/s", "tokens/s", "p50 s", "p95 s", "p99 s"):
        table.add_column(name, justify="right")
    for name in ("alone p50", "alone p95", "p95 ratio"):
        table.add_column(name, justify="right")
    for row in result.workloads:
        table.add_row(*_cells(row))
    console.print(table)
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
    """What the table does not hold, a line each."""
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
