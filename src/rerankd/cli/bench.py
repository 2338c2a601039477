"""`rerankd bench`: systems side by side on one machine, in one run; or, with --url, a running server."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rerankd.bench.measure import Result, Task, measure
from rerankd.bench.peers import PEERS
from rerankd.bench.random_weights import SHAPES, random_checkpoint
from rerankd.bench.workloads import WORKLOADS, workload_of
from rerankd.cli import bench_http
from rerankd.engine.checkpoint import find_checkpoint
from rerankd.engine.devices import choose_device, describe_device
from rerankd.errors import InferenceError, SettingsError
from rerankd.version import __version__

ENGINE_OPTIONS = ("workload", "system", "peer_python", "dtype", "device", "calls")
"""Those that mean nothing with --url."""


def add_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="hub id or folder of a Qwen3-Reranker")
    model.add_argument(
        "--random-weights", choices=SHAPES, help="random weights in the exact shapes of that size, made once"
    )
    model.add_argument("--url", help="a running server of POST /v1/rerank: measure it under load")
    parser.add_argument(
        "--workload", nargs="+", type=_workload, default=["A"], metavar="WORKLOAD", help=_workload_help()
    )
    parser.add_argument(
        "--system", nargs="+", choices=("rerankd", *PEERS), default=["rerankd"], help="default: rerankd"
    )
    parser.add_argument(
        "--peer-python",
        action="append",
        type=_interpreter,
        default=[],
        metavar="SYSTEM=PYTHON",
        help="run this system with this interpreter, in whose environment it is installed; repeatable",
    )
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16", "int8"), default=["bfloat16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--calls", type=int, default=3, help="timed calls after the warm-up (default: 3)")
    parser.add_argument("--seed", type=int, help="of prompts and random weights (default: 0; with --url a new one)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    bench_http.add_options(parser)
    parser.set_defaults(default_of=parser.get_default)


def run(options: argparse.Namespace) -> int:
    for name in ENGINE_OPTIONS if options.url else bench_http.OPTIONS:
        if getattr(options, name) != options.default_of(name):
            verb = "does not go with" if options.url else "needs"
            raise SettingsError(f"--{name.replace('_', '-')} {verb} --url.")
    return bench_http.run(options) if options.url else _run_engine(options)


def _run_engine(options: argparse.Namespace) -> int:
    seed = options.seed or 0
    folder = find_checkpoint(options.model) if options.model else random_checkpoint(options.random_weights, seed)
    pythons = dict(options.peer_python)
    results, failures = [], []
    for workload in options.workload:
        for system in options.system:
            for dtype in options.dtype:
                python = pythons.get(system, Path(sys.executable))
                task = Task(system, folder, options.device, dtype, workload, max(1, options.calls), seed, python)
                print(f"measuring {system}, {dtype}, workload {workload} …", file=sys.stderr)
                try:
                    results.append(measure(task))
                except (SettingsError, InferenceError) as error:
                    print(f"not measured: {error}", file=sys.stderr)
                    failures.append({"system": system, "dtype": dtype, "workload": workload, "reason": str(error)})
    if options.json:
        print(json.dumps({**_as_json(options, results), "not_measured": failures}, indent=2))
    elif results:
        _print(options, results)
    return 0 if results else 1


def _interpreter(text: str) -> tuple[str, Path]:
    system, _, python = text.partition("=")
    if system not in PEERS:
        raise argparse.ArgumentTypeError(f"{system!r} is not one of {', '.join(PEERS)}")
    if not (found := shutil.which(python)):
        raise argparse.ArgumentTypeError(f"{python!r} is not an interpreter")
    return system, Path(found)


def _workload(text: str) -> str:
    try:
        return workload_of(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workload_help() -> str:
    sets = (f"{w.name}: {w.num_documents} documents of about {w.document_tokens} tokens" for w in WORKLOADS.values())
    return f"one call each. {'; '.join(sets)}; or 20x532: 20 of about 532 tokens (default: A)"


def _machine(options: argparse.Namespace) -> str:
    return f"{describe_device(choose_device(options.device))}, torch {torch.__version__}, rerankd {__version__}"


def _as_json(options: argparse.Namespace, results: Sequence[Result]) -> dict[str, object]:
    rows = [{k: v for k, v in dataclasses.asdict(result).items() if k != "logits"} for result in results]
    return {
        "machine": _machine(options),
        "model": options.model or f"random weights, {options.random_weights}",
        "calls": options.calls,
        "results": rows,
        "largest_score_difference": _drift(results),
    }


def _drift(results: Sequence[Result]) -> dict[str, float]:
    """The largest difference of any prompt's score between the systems, for each workload."""
    drift = {}
    for workload in dict.fromkeys(result.workload for result in results):
        scores = torch.tensor([list(result.logits) for result in results if result.workload == workload]).sigmoid()
        drift[workload] = float((scores.amax(0) - scores.amin(0)).max())
    return drift


def _print(options: argparse.Namespace, results: Sequence[Result]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("workload", "system", "dtype"):
        table.add_column(name)
    for name in ("documents/s", "of limit", "tokens/s", "p50 s", "p95 s", "load s", "peak GB"):
        table.add_column(name, justify="right")
    for r in results:
        limit = f"{r.of_limit:.0%}" if r.of_limit else ""
        numbers = (f"{r.documents_per_s:.2f}", limit, f"{r.tokens_per_s:.0f}", f"{r.p50_s:.2f}", f"{r.p95_s:.2f}")
        table.add_row(r.workload, r.system, r.dtype, *numbers, f"{r.load_s:.1f}", f"{r.peak_memory_gb:.2f}")
    console.print(table)
    console.print("[dim]of limit: the time of the matrix products alone, measured right after, over the time taken")
    console.print(f"[dim]{options.model or 'random weights, ' + options.random_weights}; {_machine(options)}")
    if len(results) > len(options.workload):
        drift = ", ".join(f"{workload} {value:.4f}" for workload, value in _drift(results).items())
        console.print(f"[dim]largest difference of a score between the rows: {drift}")
