"""The checksums of a checkpoint's weights, read once: the disk cache keeps them until a file changes."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from rerankd.engine.loading.checkpoint_files import local_weight_files
from rerankd.engine.loading.checksums import checksum
from rerankd.engine.loading.kept import NotKept, find_kept, keep

logger = logging.getLogger(__name__)


def folder_key(folder: Path) -> str:
    """16 hex digits that stand for the place of a folder in names of the disk cache."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def weight_sums(folder: Path) -> list[tuple[str, str]]:
    """Name and checksum of each weight file that is there.

    Raises:
        CheckpointInvalid: the index of the weights is damaged.
        OSError: a file cannot be read.
    """
    shards = [shard for shard in local_weight_files(folder) if shard.is_file()]
    return [(shard.name, total) for shard, total in zip(shards, _sums(folder_key(folder), shards), strict=True)]


def _sums(key: str, shards: list[Path]) -> list[str]:
    """The checksum of each shard, from the disk cache if no shard has changed since."""
    marks = [_mark(shard) for shard in shards]
    name = f"sums-{key}"
    known: dict[str, str] = {}
    if (kept := find_kept(name, ".json")) is not None:
        known = json.loads(kept.read_bytes())
    if set(marks) <= known.keys():
        return [known[mark] for mark in marks]
    sums = [checksum(shard) for shard in shards]
    try:
        content = json.dumps(dict(zip(marks, sums, strict=True)))
        keep(name, ".json", lambda path: path.write_text(content), replaces=name)
    except OSError as error:
        if not isinstance(error, NotKept):
            logger.warning("The checksums of the weights cannot be kept: %s", error)
    return sums


def _mark(shard: Path) -> str:
    """Changes when a file is written or replaced. A program can set size and mtime, but not inode and ctime."""
    found = shard.stat()
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
