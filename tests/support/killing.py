"""Work that is killed at a stated moment, in processes that are forked in milliseconds.

A moment is a number of calls or of bytes, so it depends on the work alone and never on the time.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

Work = Callable[[], object]

KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)
"""Statuses of a process that was killed."""

MOST_S = 120
"""After which a process that hangs is killed."""


class Killer:
    """A process without threads, which forks one for each line that it reads. To be used in `with`.

    Args:
        module: reads lines from stdin, and answers each with a number.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        tests = str(Path(__file__).parents[1])
        paths = os.pathsep.join([tests, *filter(None, sys.path)])
        env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words: object) -> int:
        """The answer to a line of these words."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Killer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its stdin ends, and so does it
        assert self._process.returncode == 0


def in_child(work: Work) -> int:
    """The status of a process that does this and nothing else."""
    child = os.fork()
    if child == 0:
        signal.alarm(MOST_S)
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counted(work: Work, files: Collection[str]) -> int:
    """The moments of some work: see `stopped`. It is done in a child."""
    ours, theirs = os.pipe()

    def count() -> None:
        number = 0

        def one() -> None:
            nonlocal number
            number += 1

        with _each_call(one, files):
            work()
        os.write(theirs, str(number).encode())

    status = in_child(count)
    found = os.read(ours, 100)
    os.close(ours)
    os.close(theirs)
    assert status == 0
    return int(found)


def stopped(work: Work, files: Collection[str], at: int) -> int:
    """The status of a child whose work is killed at a moment: the beginning or end of a function of these files, or
    of a call from one of them into C or Rust.
    """

    def until() -> None:
        left = at

        def one() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

        with _each_call(one, files):
            work()

    return in_child(until)


def torn(work: Work, most_bytes: int) -> int:
    """The status of a child that is killed when a file gets longer than this; the file keeps so many bytes."""

    def until() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        work()

    return in_child(until)


@contextmanager
def _each_call(report: Callable[[], None], files: Collection[str]) -> Iterator[None]:
    def profile(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code.co_filename in files:
            report()

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
