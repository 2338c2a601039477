"""What this machine made for itself and keeps on disk: compiled kernels, quantised weights.

It is run and believed at the next start, so the folder must be the user's alone, and a file's name ends in the
checksum of its contents. Knows nothing of what is kept.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rerankd.engine.loading.checksums import CHECKSUM_LEN, checksum
from rerankd.user_folders import cache_folder

# Windows has none: there, what killed writers left stays.
fcntl: Any = import_module("fcntl") if find_spec("fcntl") else None

logger = logging.getLogger(__name__)

UNFINISHED = "tmp"
"""Folders of writers begin with it. A writer that lives holds a lock on its own."""


class NotKept(OSError):
    """There is no folder to keep things in; the message says why."""


def find_kept(prefix: str, suffix: str) -> Path | None:
    """The intact file that `keep` wrote under these names. A damaged one is removed, and the log says so."""
    try:
        folder = _folder()
    except NotKept:
        return None
    _remove_leftovers(folder)
    for file in sorted(folder.glob(f"{prefix}-{'[0-9a-f]' * CHECKSUM_LEN}{suffix}")):
        if _is_intact(file, prefix, suffix):
            return file
        logger.warning("%s cannot be read: it is damaged, or not yours alone. It is made again.", file)
        _remove(file)
    return None


def keep(prefix: str, suffix: str, write: Callable[[Path], object], *, replaces: str = "") -> Path:
    """Has a file written, and keeps it whole or not at all.

    Args:
        write: makes the file at the path that it is given.
        replaces: files whose names begin so are removed afterwards; none if empty.

    Raises:
        NotKept: there is no folder for it.
        OSError: it cannot be written.
    """
    folder = _folder()
    with _unfinished(folder) as unfinished:
        written = unfinished / "file"
        write(written)
        written.chmod(0o600)
        _sync(written)
        file = folder / f"{prefix}-{checksum(written)}{suffix}"
        written.replace(file)
        _sync(folder)
    if replaces:
        for other in folder.glob(f"{replaces}*{suffix}"):
            if other != file:
                _remove(other)
    return file


def _folder() -> Path:
    """`rerankd` in the user's cache folder, made if need be. Raises NotKept."""
    path = _place()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise _not_kept(f"{path} cannot be made: {error.strerror}. Set XDG_CACHE_HOME to a folder of yours") from error
    if not _is_ours(found):
        raise _not_kept(f"{path} belongs to somebody else, or others may write there (chown it, and chmod 700)")
    return path


def _place() -> Path:
    try:
        return cache_folder()
    except RuntimeError:
        raise _not_kept("there is no home folder: set HOME or XDG_CACHE_HOME to a folder of yours") from None


def _not_kept(reason: str) -> NotKept:
    _say_once(reason)
    return NotKept(reason)


@cache
def _say_once(reason: str) -> None:
    logger.warning("Nothing is kept for the next start: %s.", reason)


def _is_ours(found: os.stat_result) -> bool:
    if not hasattr(os, "geteuid"):  # Windows
        return True
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_intact(file: Path, prefix: str, suffix: str) -> bool:
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or not _is_ours(found):
            return False
        return file.name == f"{prefix}-{checksum(file)}{suffix}"
    except OSError:
        return False


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A folder for a writer, removed afterwards; by the next start where the writer is killed."""
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder) as name:
        lock = os.open(name, os.O_RDONLY) if fcntl else None
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            if lock is not None:
                os.close(lock)


def _remove_leftovers(folder: Path) -> None:
    if fcntl is None:
        return
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # gone meanwhile, or its writer lives
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _sync(path: Path) -> None:
    """Until this returns, a power cut may lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
