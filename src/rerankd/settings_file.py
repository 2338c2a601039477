"""Reads a settings file. Knows no setting."""

from __future__ import annotations

import codecs
import os
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from rerankd.errors import SettingsError


def read_settings_file(path: Path) -> dict[str, Any]:
    """The contents of a TOML file, with or without a byte order mark; decimal numbers are exact.

    Raises:
        SettingsError: the file cannot be read, or is empty; the message names it.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"), parse_float=Decimal)
    except (OSError, ValueError, ArithmeticError) as error:
        raise SettingsError(f"{path} cannot be read: {_reason(error)}.") from None
    if not values:  # an editor that writes in place empties it for a moment
        raise SettingsError(f"{path} contains no settings.")
    return values


def file_version(path: Path) -> tuple[int, int, int] | None:
    """A value that changes with the file; None where the file is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        wide = error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return "it is UTF-16: save it as UTF-8" if wide else f"it is not UTF-8 (byte {error.start})"
    return "a number in it is too large" if isinstance(error, ArithmeticError) else str(error)
