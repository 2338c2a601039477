"""How many processors this process may use. Knows no torch."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def num_processors() -> int:
    """Those of the machine, or the share that a container has of them (cgroup v2: cpu.max); at least 1."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        available = min(available, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no such file, or the quota is "max"
        pass
    return max(1, available)
