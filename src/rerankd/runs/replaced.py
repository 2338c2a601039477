"""Writes a file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rerankd.disk import sync


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
