"""Times one system on one workload, in a process of its own so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.bench.systems import SYSTEMS
from rerankd.bench.workloads import WORKLOADS


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure. `calls`: timed calls after one that warms up."""

    system: str
    folder: Path
    device: str
    dtype: str
    workload: str
    calls: int
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured. Rates over all timed calls; p50_s, p95_s: seconds a call; peak_memory_gb: resident,
    weights included; load_s: until the first call could begin; logits: of the first call, to compare systems."""

    system: str
    dtype: str
    workload: str
    documents: int
    prompt_tokens: int
    documents_per_s: float
    tokens_per_s: float
    p50_s: float
    p95_s: float
    load_s: float
    peak_memory_gb: float
    logits: Sequence[float]


def measure(task: Task) -> Result:
    """Runs the task in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (task,))


def _measure(task: Task) -> Result:
    pairs = WORKLOADS[task.workload].pairs(task.seed)
    started = time.perf_counter()
    with SYSTEMS[task.system](task.folder, task.device, task.dtype) as score:
        load_s = time.perf_counter() - started
        logits = score(pairs[: max(1, len(pairs) // 10)])  # warm-up
        seconds = []
        for _ in range(task.calls):
            started = time.perf_counter()
            logits = score(pairs)
            seconds.append(time.perf_counter() - started)
    tokens = sum(len(pair.token_ids) for pair in pairs)
    return Result(
        system=task.system,
        dtype=task.dtype,
        workload=task.workload,
        documents=len(pairs),
        prompt_tokens=tokens,
        documents_per_s=len(pairs) * task.calls / sum(seconds),
        tokens_per_s=tokens * task.calls / sum(seconds),
        p50_s=_percentile(seconds, 0.5),
        p95_s=_percentile(seconds, 0.95),
        load_s=load_s,
        peak_memory_gb=_peak_memory_gb(),
        logits=logits,
    )


def _percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _peak_memory_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
