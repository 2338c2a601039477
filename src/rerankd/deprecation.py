"""Warns about names that have another name now. Standard library only."""

from __future__ import annotations

import warnings


def warn_renamed(old: str, new: str) -> None:
    """Warns the caller of the function that calls this."""
    warnings.warn(f"{old} is deprecated: use {new}.", DeprecationWarning, stacklevel=3)
