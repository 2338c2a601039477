"""The key of an upstream: from a variable, from a file that may change, or the text itself. Never shows a key."""

from __future__ import annotations

import os
from pathlib import Path

from rerankd.errors import SettingsError
from rerankd.settings_file import file_version


class KeySource:
    """`env:NAME`, `file:PATH`, or the key itself.

    Raises:
        SettingsError: the variable is not set, or the file cannot be read or is empty.
    """

    def __init__(self, text: str) -> None:
        kind, _, rest = text.partition(":")
        self._path = Path(rest) if kind == "file" else None
        self.is_bare = kind not in ("file", "env")
        self._seen: tuple[int, int, int] | None = None
        self._key = ""
        if kind == "env":
            self._key = os.environ.get(rest, "").strip()
            if not self._key:
                raise SettingsError(f"the variable {rest} is not set")
        elif self._path is None:
            self._key = text.strip()
        self.current()

    def current(self) -> str:
        """The key. A file is read again when it changes; one that cannot be read leaves the last key.

        Raises:
            SettingsError: the file was never read.
        """
        if self._path is None:
            return self._key
        try:
            version = file_version(self._path)
            if version is None or version != self._seen:
                if key := self._path.read_text(encoding="utf-8-sig").strip():
                    self._key, self._seen = key, version
                elif not self._key:
                    raise SettingsError(f"{self._path} is empty")
        except (OSError, UnicodeDecodeError) as error:
            if not self._key:
                reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
                raise SettingsError(f"{self._path} cannot be read: {reason}") from None
        return self._key

    def __repr__(self) -> str:
        return "KeySource('**********')"
