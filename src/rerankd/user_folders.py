"""The user's folders, by the rules of the platform and the XDG variables."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def data_folder() -> Path:
    """For files that must not be lost: `~/.local/share/rerankd`, on macOS `~/Library/Application Support/rerankd`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(_folders().user_data_dir)


def cache_folder() -> Path:
    """For files that can be made again: `~/.cache/rerankd`, on macOS `~/Library/Caches/rerankd`.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(_folders().user_cache_dir)


def _folders() -> platformdirs.PlatformDirs:
    return platformdirs.PlatformDirs("rerankd", appauthor=False)
