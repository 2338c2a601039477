"""The disk cache of compiled kernels and quantized weights.

The next start runs and trusts these files. So only the user may write to the folder, and the name of each file ends in
the checksum of its contents. A file that no start used for UNUSED_DAYS is removed when a new one is written. Knows
nothing about the contents.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from rerankd.disk import fcntl, sync
from rerankd.engine.loading.checksums import CHECKSUM_LEN, checksum
from rerankd.user_folders import cache_folder

logger = logging.getLogger(__name__)

UNFINISHED = "tmp"
"""The prefix of a writer's temporary folder. A running writer holds a lock on it."""


UNUSED_DAYS = 90
"""int8 weights of a deleted checkpoint, or kernels of an old release, would otherwise stay for ever."""


class NotKept(OSError):
    """The disk cache has no usable folder; the message gives the reason."""


def find_kept(prefix: str, suffix: str) -> Path | None:
    """The intact file that `keep` wrote under this prefix and suffix. Removes a damaged file and logs it."""
    try:
        folder = _folder()
    except NotKept:
        return None
    _remove_leftovers(folder)
    for file in sorted(folder.glob(f"{prefix}-{'[0-9a-f]' * CHECKSUM_LEN}{suffix}")):
        if _is_intact(file, prefix, suffix):
            _note_use(file)
            return file
        logger.warning("%s cannot be read: it is damaged, or not yours alone. It is made again.", file)
        _remove(file)
    return None


def keep(prefix: str, suffix: str, write: Callable[[Path], object], *, replaces: str = "") -> Path:
    """Stores a file atomically.

    Args:
        write: creates the file at the given path.
        replaces: other files with this prefix are removed afterwards; none if empty.

    Raises:
        NotKept: the disk cache has no usable folder.
        OSError: the file cannot be written.
    """
    folder = _folder()
    with _unfinished(folder) as unfinished:
        written = unfinished / "file"
        write(written)
        written.chmod(0o600)
        sync(written)
        file = folder / f"{prefix}-{checksum(written)}{suffix}"
        written.replace(file)
        sync(folder)
    if replaces:
        for other in folder.glob(f"{replaces}*{suffix}"):
            if other != file:
                _remove(other)
    _remove_unused(folder)
    return file


def _folder() -> Path:
    """`rerankd` in the user's cache folder, created if necessary. Raises NotKept."""
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
    """A temporary folder for a writer. The next start removes it if the writer is killed."""
    name, lock = _locked_folder(folder)
    try:
        yield name
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(folder: Path) -> tuple[Path, int | None]:
    """A new temporary folder, and the descriptor that locks it; None where there are no locks.

    Until it is locked, another thread may take it for the leftover of a killed writer and remove it.
    """
    while True:
        name = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        if fcntl is None:
            return name, None
        with suppress(FileNotFoundError):
            lock = os.open(name, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if name.exists():
                return name, lock
            os.close(lock)


def _remove_leftovers(folder: Path) -> None:
    if fcntl is None:
        return
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # already removed, or its writer is running
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def _note_use(file: Path) -> None:
    """Sets the time of the last access, which many systems do not keep."""
    with suppress(OSError):  # a read-only folder
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def _remove_unused(folder: Path) -> None:
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for file in folder.iterdir():
        with suppress(OSError):  # another process removed it
            found = file.lstat()
            is_kept = stat.S_ISREG(found.st_mode) and re.search(rf"-[0-9a-f]{{{CHECKSUM_LEN}}}\.\w+$", file.name)
            if is_kept and max(found.st_atime, found.st_mtime) < oldest:
                file.unlink()
                logger.info("%s was removed: nothing used it for %d days.", file, UNUSED_DAYS)


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink()
