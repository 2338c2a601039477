"""Files that survive a power cut, that are whole or not there, or that lock a folder for one process. Standard library
only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from rerankd.errors import InvalidRequest

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""None on Windows, where nothing is locked."""

NAME_CHARS = 8
"""The characters that tempfile puts into a name."""


def sync(path: Path) -> None:
    """Flushes a file or folder to disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """A path in the same folder. At the end of the block the file there takes the place of `path` and is on disk; if
    the block fails, `path` is as it was.

    Raises:
        OSError: the folder cannot be written, or there is no space.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", suffix=path.suffix, dir=path.parent)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        yield unfinished
        sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove_unfinished(path: Path) -> None:
    """Removes what a killed `replacement` of a path left beside it. No other process may be writing there."""
    for left in path.parent.glob(f".{escape(path.name)}-{'?' * NAME_CHARS}{escape(path.suffix)}"):
        left.unlink(missing_ok=True)


def lock_alone(file: IO[str], taken: str) -> None:
    """Locks an open file until it is closed.

    Args:
        taken: the message if another process has locked it.

    Raises:
        InvalidRequest: another process has.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InvalidRequest(taken) from None
