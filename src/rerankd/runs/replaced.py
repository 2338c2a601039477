"""Writes a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from rerankd.disk import sync

NAME_CHARS = 8
"""The characters that tempfile puts into a name."""


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
