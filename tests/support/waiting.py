"""Waits for a condition, bounded by a number of attempts: a slow machine makes no test fail."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120
"""Seconds that a test waits for something that takes a moment on an idle machine."""


def wait_until(condition: Callable[[], bool], attempts: int = 20_000) -> None:
    """Returns once the condition holds. It is checked every 10 ms, or as often as the machine can."""
    for _ in range(attempts):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"The condition did not hold in {attempts} attempts.")
