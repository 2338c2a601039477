"""A replica of the simulation: the engine's own jobs, chunks and batching; only the model's time is simulated."""

from __future__ import annotations

from collections.abc import Sequence

from rerankd.capacity.assumptions import CACHED_TOKENS, Replica
from rerankd.engine.batching import Batches
from rerankd.engine.chunks import Step
from rerankd.engine.job import Job
from rerankd.types import Prompt


class SimulatedReplica:
    """An engine without a thread: `begin` a batch, and `end` it when its time is over.

    Attributes:
        outstanding: requests that it has and has not answered.
        busy_s: spent on batches so far.
        tokens: computed so far.
    """

    def __init__(self, assumed: Replica) -> None:
        self._assumed = assumed
        self._jobs: list[Job] = []
        self._owners: dict[int, int] = {}  # which part a job is, by the job's id
        self._batch: list[tuple[Job, list[Step]]] = []
        self._batches = Batches()
        self._numbers = 0
        self.outstanding = 0
        self.busy_s = 0.0
        self.tokens = 0

    @property
    def is_idle(self) -> bool:
        return not self._batch

    @property
    def num_prompts(self) -> int:
        """That the running batch answers."""
        return sum(step.is_last for _, steps in self._batch for step in steps)

    def add(self, part: int, prompts: Sequence[Prompt]) -> None:
        """Queues a part."""
        keys = [number.to_bytes(8, "big") for number in range(self._numbers, self._numbers + len(prompts))]
        self._numbers += len(prompts)
        job = Job(prompts, keys, {}, self._assumed.max_batch_tokens // 2)
        job.served = min((other.served for other in self._jobs), default=0)
        self._jobs.append(job)
        self._owners[id(job)] = part

    def begin(self) -> float | None:
        """Begins the next batch: the seconds that it takes; None without work."""
        if not self._jobs:
            return None
        most = self._assumed.max_batch_tokens
        counts = self._batches.choose([job.waiting(most) for job in self._jobs], most)
        self._batch = [(job, job.take(count)) for job, count in zip(self._jobs, counts, strict=True) if count]
        tokens = sum(step.cost for _, steps in self._batch for step in steps)
        tokens -= CACHED_TOKENS * sum(not job.running for job, _ in self._batch)
        for job, _ in self._batch:
            job.running = True
        seconds = self._assumed.seconds(tokens)
        self.tokens += tokens
        self.busy_s += seconds
        return seconds

    def end(self) -> list[int]:
        """Ends the batch; the parts that are done."""
        done = []
        for job, steps in self._batch:
            job.add(steps, [0.0] * sum(step.is_last for step in steps))
            if not job.remaining:
                self._jobs.remove(job)
                done.append(self._owners.pop(id(job)))
        self._batch = []
        return done
