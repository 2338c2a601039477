"""Times one system on one workload, in a process of its own so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.bench.foreign import Job, Timing, time_calls
from rerankd.bench.peers import measure_peer
from rerankd.bench.percentile import percentile
from rerankd.bench.random_weights import NO_ID, YES_ID
from rerankd.bench.systems import open_engine
from rerankd.bench.workloads import WORKLOADS
from rerankd.engine.devices import choose_device
from rerankd.types import EncodedPair


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure. calls: timed calls after one that warms up; python: the interpreter of a system beside ours."""

    system: str
    folder: Path
    device: str
    dtype: str
    workload: str
    calls: int
    seed: int
    python: Path = Path(sys.executable)


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured. Rates over all timed calls; p50_s, p95_s: seconds a call; peak_memory_gb: resident,
    weights included; load_s: until the first call could begin, conversion of the checkpoint included; logits: of the
    last call, to compare systems."""

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
    """Runs the task in a fresh process.

    Raises:
        SettingsError, InferenceError: see `measure_peer`.
    """
    pairs = WORKLOADS[task.workload].pairs(task.seed)
    timing = _measure_engine(task, pairs) if task.system == "rerankd" else measure_peer(_job(task, pairs), task.python)
    seconds = timing["seconds"]
    tokens = sum(len(pair.token_ids) for pair in pairs)
    return Result(
        system=task.system,
        dtype=task.dtype,
        workload=task.workload,
        documents=len(pairs),
        prompt_tokens=tokens,
        documents_per_s=len(pairs) * task.calls / sum(seconds),
        tokens_per_s=tokens * task.calls / sum(seconds),
        p50_s=percentile(seconds, 0.5),
        p95_s=percentile(seconds, 0.95),
        load_s=timing["load_s"],
        peak_memory_gb=timing["peak_memory"] / 1e9,
        logits=timing["logits"],
    )


def _measure_engine(task: Task, pairs: Sequence[EncodedPair]) -> Timing:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_time_engine, (task, pairs))


def _time_engine(task: Task, pairs: Sequence[EncodedPair]) -> Timing:
    return time_calls(open_engine(task.folder, task.device, task.dtype), pairs, task.calls)


def _job(task: Task, pairs: Sequence[EncodedPair]) -> Job:
    return Job(
        system=task.system,
        folder=str(task.folder),
        device=str(choose_device(task.device)),
        dtype=task.dtype,
        yes_id=YES_ID,
        no_id=NO_ID,
        prefix_len=pairs[0].shared_len,
        prompts=[list(pair.token_ids) for pair in pairs],
        calls=task.calls,
    )
