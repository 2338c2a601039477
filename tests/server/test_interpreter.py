"""Settings of the interpreter, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, sys
from rerankd.server.interpreter import spare_collector, tune_for_serving
tune_for_serving()
print(sys.getswitchinterval() <= 0.001, gc.get_threshold()[0] > 700, gc.isenabled())
spare_collector()
print(gc.get_freeze_count() > 1000)
"""


def test_waiting_threads_get_their_turn_soon_and_collections_are_few() -> None:
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    assert printed.split() == ["True"] * 4
