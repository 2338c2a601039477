"""Files that survive a power cut, and files that lock a folder for one process. Standard library only."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from rerankd.errors import InvalidRequest

fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None
"""None on Windows, where nothing is locked."""


def sync(path: Path) -> None:
    """Flushes a file or folder to disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
