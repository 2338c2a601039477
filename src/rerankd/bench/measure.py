"""Times one system on one workload, in a separate process so that the memory is measured separately."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.bench.hardware import computed_tokens, linear_flops, matrix_seconds
from rerankd.bench.our_engine import open_engine
from rerankd.bench.peer_main import Job, Timing, time_calls
from rerankd.bench.peer_process import measure_peer
from rerankd.bench.percentile import percentile
from rerankd.bench.random_weights import NO_ID, YES_ID
from rerankd.bench.workloads import workload_of
from rerankd.engine.loading.devices import choose_device
from rerankd.engine.loading.dtypes import choose_dtype
from rerankd.engine.qwen3.weights import read_config
from rerankd.types import Prompt


@dataclass(frozen=True, slots=True)
class Task:
    """A measurement. calls: timed calls after one warm-up call; python: the interpreter of another system."""

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
    """The result of a task.

    Rates are over all timed calls. p50_s, p95_s: seconds per call. peak_memory_gb: resident memory, weights included.
    load_s: until the first call, including conversion of the checkpoint. logits: of the last call, to compare systems.
    of_limit: the share of the time that matrix multiplication alone takes, measured afterwards, for rerankd only.
    limit_tflops: the rate of that multiplication in 10^12 operations per second.
    """

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
    of_limit: float | None = None
    limit_tflops: float | None = None


def measure(task: Task) -> Result:
    """Runs the task in a new process.

    Raises:
        SettingsError, InferenceError: see `measure_peer`.
    """
    workload = workload_of(task.workload)
    prompts = workload.prompts(task.seed)
    limit_s = limit_tflops = None
    if task.system == "rerankd":
        timing, limit_s, limit_tflops = _measure_engine(task, prompts)
    else:
        timing = measure_peer(_job(task, prompts), task.python)
    seconds = timing["seconds"]
    tokens = sum(len(prompt.token_ids) for prompt in prompts)
    return Result(
        system=task.system,
        dtype=task.dtype,
        workload=task.workload,
        documents=workload.num_documents,
        prompt_tokens=tokens,
        documents_per_s=workload.num_documents * task.calls / sum(seconds),
        tokens_per_s=tokens * task.calls / sum(seconds),
        p50_s=percentile(seconds, 0.5),
        p95_s=percentile(seconds, 0.95),
        load_s=timing["load_s"],
        peak_memory_gb=timing["peak_memory"] / 1e9,
        logits=timing["logits"],
        of_limit=limit_s * task.calls / sum(seconds) if limit_s else None,
        limit_tflops=limit_tflops,
    )


def _measure_engine(task: Task, prompts: Sequence[Prompt]) -> tuple[Timing, float, float]:
    """The timing, the seconds that matrix multiplication alone takes in a call, and its rate in 10^12 per second."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_time_engine, (task, prompts))


def _time_engine(task: Task, prompts: Sequence[Prompt]) -> tuple[Timing, float, float]:
    device, config = choose_device(task.device), read_config(task.folder)
    timing = time_calls(open_engine(task.folder, task.device, task.dtype), prompts, task.calls)
    a_token = matrix_seconds(config, choose_dtype(task.dtype, device), device)
    return timing, a_token * computed_tokens(prompts), linear_flops(config) / a_token / 1e12


def _job(task: Task, prompts: Sequence[Prompt]) -> Job:
    return Job(
        system=task.system,
        folder=str(task.folder),
        device=str(choose_device(task.device)),
        dtype=task.dtype,
        yes_id=YES_ID,
        no_id=NO_ID,
        prefix_len=prompts[0].shared_len,
        prompts=[list(prompt.token_ids) for prompt in prompts],
        calls=task.calls,
    )
