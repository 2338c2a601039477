"""A batch over the replicas of a Ray cluster in a process of its own, which a test kills and starts again.

`python -m support.ray_batch ADDRESS INPUT OUTPUT BYTES_OF_A_UNIT`. Prints a line after each unit: the
pairs so far, MB of memory.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from rerankd.batch import manifest as manifest_module
from rerankd.batch.manifest import Manifest, plan
from rerankd.batch.rows import Columns
from rerankd.batch.run import Progress, run_batch
from rerankd.cluster.settings import ReplicaSettings
from rerankd.cluster.start import start_on_replicas
from rerankd.engine.loading.open import Choice
from rerankd.engine.scorer import EngineScorer
from support.ray_fakes import SleepingModel, start_sleeping


def manifest_of(records: Path, unit_bytes: int) -> Manifest:
    manifest_module.UNIT_BYTES = unit_bytes
    return plan([records], {"name": "fake"}, "", Columns())


def front(address: str | None, folder: Path, seconds: float = 0.01, replicas: int = 2, **changes: str) -> EngineScorer:
    """A scorer over replicas of `SleepingModel`."""
    return start_on_replicas(
        ReplicaSettings(Choice("fake", **changes), replicas, 1, address),  # type: ignore[arg-type]
        score_cache_mb=0,
        start=partial(start_sleeping, seconds, folder, stuck_s=2),
        prompts=SleepingModel(0, folder),
    )


def resident_mb() -> float:
    """Of this process."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


def main(address: str, records: str, output: str, unit_bytes: str) -> None:
    def report(progress: Progress) -> None:
        print(progress.pairs, round(resident_mb(), 1), flush=True)

    scorer = front(address, Path(output).parent)
    try:
        run_batch(manifest_of(Path(records), int(unit_bytes)), Path(output), scorer, report, at_once=3)
    finally:
        scorer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
