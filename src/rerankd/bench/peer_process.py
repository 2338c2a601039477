"""Measures other systems, each in its own process and, if necessary, with another interpreter.

`peer_main.py` runs in that process. This module sends it a job and reads its answer.
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
    """Runs the job with the given interpreter.

    Raises:
        SettingsError: the system is not installed for the interpreter, or cannot run the job.
        InferenceError: the system failed; the message names its log file.
    """
    with tempfile.NamedTemporaryFile("w", prefix=f"rerankd-{job['system']}-", suffix=".log", delete=False) as log:
        done = subprocess.run(
            [python, peer_main.__file__],
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Without it, modules beside peer_main.py would shadow others of the same name.
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
