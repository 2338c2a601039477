"""Finds or downloads a checkpoint: a name → a local folder."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from rerankd.engine.loading.checkpoint_files import missing_files, pointers
from rerankd.engine.loading.hub import Share, download, snapshot
from rerankd.engine.loading.kinds import foreign_file, refuse_foreign
from rerankd.errors import CheckpointInvalid, CheckpointNotFound, HubUnreachable

logger = logging.getLogger(__name__)


def find_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    progress: Share | None = None,
    embedding: bool = False,
) -> Path:
    """The folder that holds the checkpoint: a local one, else from the cache, else from the hub.

    Args:
        name: a folder, or `org/name` on the hub. A name with the prefix `.`, `/` or `~` is always a folder.
        revision: a branch, tag or commit on the hub; a folder has none.
        offline: do not ask the hub.
        progress: called with the downloaded share; without it, a terminal on stderr shows bars.
        embedding: whether an embedding model is wanted.

    Raises:
        CheckpointNotFound: no such folder, repository or revision, or no access to it.
        CheckpointInvalid: files are missing, or the kind is unsupported.
        HubUnreachable: not in the cache, and the hub does not answer or must not be asked.
        ModelError: the cache cannot be written.
    """
    folder = local_folder(name)
    if folder is None and (folder := is_cached(name, revision=revision)) is None:
        if offline:
            raise HubUnreachable(f"{name} is not complete in the cache, and --offline forbids to ask the hub for it.")
        folder = download(name, revision, progress, embedding=embedding)
    check_folder(name, folder, embedding=embedding)
    return folder


def local_folder(name: str) -> Path | None:
    """The folder that a name refers to; None if it refers to a model on the hub.

    A name like `org/name` means the hub, unless there is such a folder here that only trusted users can have filled:
    a folder that anybody put into the working directory is not taken for a model of that name.

    Raises:
        CheckpointNotFound: the name can only be a folder, and the folder does not exist.
    """
    folder = Path(os.path.expanduser(name)).absolute()
    explicit = name.startswith((".", "~")) or os.path.isabs(name)
    if not explicit and not os.path.exists(name):
        return None
    if not folder.is_dir():
        hint = foreign_file(folder.name) if folder.is_file() else None
        raise CheckpointNotFound(f"There is no folder {folder}. {hint or 'Pass the folder that holds config.json.'}")
    if explicit:
        return folder
    if not _is_trusted(folder):
        logger.warning("%s is not used: others own it or may write there. To use it all the same: ./%s", folder, name)
        return None
    if name.count("/") == 1:
        logger.warning("%s is taken to be the folder %s, not a model on the hub: ./%s says so.", name, folder, name)
    return folder


def _is_trusted(folder: Path) -> bool:
    """Whether it belongs to this user or root, and others may not write to it."""
    found = folder.stat()
    return not hasattr(os, "geteuid") or (found.st_uid in (os.geteuid(), 0) and not found.st_mode & stat.S_IWOTH)


def is_cached(name: str, *, revision: str | None = None) -> Path | None:
    """The folder in the Hugging Face cache, if the checkpoint is complete there. Uses no network.

    Raises:
        CheckpointNotFound: `name` is not a name like `org/name`.
    """
    folder = snapshot(name, revision)
    # Another program may have downloaded single files, so the cached folder may be incomplete.
    return None if folder is None or missing_files(folder) else folder


def check_folder(name: str, folder: Path, *, embedding: bool = False) -> None:
    """Raises CheckpointInvalid if files are missing, or the kind is unsupported."""
    names = {str(path.relative_to(folder)) for path in folder.glob("*")} | {
        str(path.relative_to(folder)) for path in folder.glob("*/*")
    }
    refuse_foreign(name, folder, names, embedding=embedding)
    if missing := missing_files(folder):
        raise CheckpointInvalid(
            f"{folder} is not a complete checkpoint: it lacks {', '.join(missing[:3])}. Needed are "
            "config.json, tokenizer.json and the weights as *.safetensors."
        )
    if found := pointers(folder):
        raise CheckpointInvalid(
            f"{folder / found[0]} is a Git LFS pointer, not the file itself: run `git lfs pull` in {folder}."
        )
