"""The systems that ours is measured beside, each in a process of its own and, where need be, another interpreter's.

What they do there is in `peer_main.py`; here a job is handed over and the answer read.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rerankd.bench import peer_main
from rerankd.bench.peer_main import Job, Timing
from rerankd.errors import InferenceError, SettingsError

PEERS: Sequence[str] = tuple(peer_main.SYSTEMS)


def measure_peer(job: Job, python: Path) -> Timing:
    """Runs the job with this interpreter.

    Raises:
        SettingsError: the system is not installed for this interpreter, or cannot do this job.
        InferenceError: it failed; names the file with what it wrote.
    """
    with tempfile.NamedTemporaryFile("w", prefix=f"rerankd-{job['system']}-", suffix=".log", delete=False) as log:
        done = subprocess.run(
            [python, peer_main.__file__],
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # The folder of peer_main.py is no place to import from: its files have names that others use.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
    if done.returncode:
        raise InferenceError(f"{job['system']} ended with status {done.returncode}: see {log.name}.")
    Path(log.name).unlink()
    answer = json.loads(done.stdout)
    if "missing" in answer:
        name, package = job["system"], answer["missing"]
        raise SettingsError(f"{name}: no package {package} for {python}; --peer-python {name}=… names another one.")
    if "refused" in answer:
        raise SettingsError(f"{job['system']}: {answer['refused']}")
    timing: Timing = answer["timing"]
    return timing
