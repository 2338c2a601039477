"""Where the log of a server goes, and what a line looks like."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: str = "info") -> None:
    """Our own lines from `level` on, and warnings of other packages.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("rerankd").setLevel(number)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text stream, unless replaced


class _OneLine(logging.Formatter):
    """Writes control characters as escapes: what a caller sent must not look like another line of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(map(_printable, line))


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
