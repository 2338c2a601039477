"""`rerankd bench` without --url: systems side by side on this machine."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from rerankd.bench.measure import Result, Task, measure
from rerankd.bench.random_weights import random_checkpoint
from rerankd.cli.bench_options import EngineOptions
from rerankd.cli.console import output_console
from rerankd.cli.table import show_table
from rerankd.engine.loading.checkpoint import find_checkpoint
from rerankd.engine.loading.devices import choose_device, describe_device
from rerankd.errors import InferenceError, SettingsError
from rerankd.version import __version__


def bench_engine(options: EngineOptions, model: str | None, size: str | None, seed: int, *, as_json: bool) -> int:
    """Measures and prints; the status is 1 if nothing could be measured.

    Args:
        model: hub id or folder.
        size: without a model, the size of random weights.
    """
    folder = find_checkpoint(model) if model else random_checkpoint(str(size), seed)
    name = model or f"random weights, {size}"
    pythons = dict(options.peer_python)
    results, failures = [], []
    for workload, system, dtype in product(options.workload, options.system, options.dtype):
        python = pythons.get(system, Path(sys.executable))
        task = Task(system, folder, options.device, dtype, workload, options.calls, seed, python)
        print(f"measuring {system}, {dtype}, workload {workload} …", file=sys.stderr)
        try:
            results.append(measure(task))
        except (SettingsError, InferenceError) as error:
            print(f"not measured: {error}", file=sys.stderr)
            failures.append({"system": system, "dtype": dtype, "workload": workload, "reason": str(error)})
    if as_json:
        print(json.dumps({**_as_json(options, name, results), "not_measured": failures}, indent=2))
    elif results:
        _print(options, name, results)
    return 0 if results else 1


def _machine(options: EngineOptions) -> str:
    return f"{describe_device(choose_device(options.device))}, torch {torch.__version__}, rerankd {__version__}"


def _as_json(options: EngineOptions, model: str, results: Sequence[Result]) -> dict[str, object]:
    rows = [{k: v for k, v in dataclasses.asdict(result).items() if k != "logits"} for result in results]
    return {
        "machine": _machine(options),
        "model": model,
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


def _print(options: EngineOptions, model: str, results: Sequence[Result]) -> None:
    names = ("documents/s", "of limit", "tokens/s", "p50 s", "p95 s", "load s", "peak GB")
    rows = []
    for r in results:
        limit = f"{r.of_limit:.0%}" if r.of_limit else ""
        numbers = (f"{r.documents_per_s:.2f}", limit, f"{r.tokens_per_s:.0f}", f"{r.p50_s:.2f}", f"{r.p95_s:.2f}")
        rows.append((r.workload, r.system, r.dtype, *numbers, f"{r.load_s:.1f}", f"{r.peak_memory_gb:.2f}"))
    show_table(("workload", "system", "dtype", *names), rows, numbers=names)
    console = output_console()
    console.print(
        "[dim]of limit: the time of the fastest matrix products here, measured right after, over the time taken"
    )
    if rates := _rates(results):
        console.print(f"[dim]these products: {rates}")
    console.print(f"[dim]{model}; {_machine(options)}")
    if len(results) > len(options.workload):
        drift = ", ".join(f"{workload} {value:.4f}" for workload, value in _drift(results).items())
        console.print(f"[dim]largest difference of a score between the rows: {drift}")


def _rates(results: Sequence[Result]) -> str:
    """The best rate of each dtype, to compare with the peak that the maker of a card names."""
    best: dict[str, float] = {}
    for result in results:
        if result.limit_tflops:
            best[result.dtype] = max(best.get(result.dtype, 0.0), result.limit_tflops)
    return ", ".join(f"{dtype} {rate:.3g} TFLOP/s" for dtype, rate in best.items())
