"""Settings of the Python interpreter that keep small calls quick beside large ones. Knows no HTTP.

One thread at a time runs Python. A thread that has waited for a socket gets its turn back only when the running thread
gives it up, which Python asks for after the switch interval. A small call passes through some twenty such waits.
"""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_S = 0.0005
"""Python's own default is 0.005."""

COLLECT_AFTER = 10_000
"""New objects before the garbage collector looks for cycles among them; Python's default is 700. A call of 10,000
documents makes several times as many objects, and no cycles."""


def tune_for_serving() -> None:
    """Changes the whole process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


def spare_collector() -> None:
    """Takes all objects that exist now out of the garbage collector's sight: to be called once a model is loaded.

    A full collection would look at some million objects of imported libraries, for 0.1 s in which nothing else runs.
    """
    gc.collect()
    gc.freeze()
