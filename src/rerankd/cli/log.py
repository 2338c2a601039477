"""The log of a server: one line per record on stderr."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: str = "info") -> None:
    """Logs our records from `level` up, and warnings of other packages, to stderr.

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
    """Escapes control characters, so that a caller cannot forge lines of the log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(map(_printable, line))


def _printable(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
