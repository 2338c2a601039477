"""The log of a server: one line per record on stderr, for people or in JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]


def log_to_stderr(level: str = "info", log_format: LogFormat = "text") -> None:
    """Logs our records from `level` up, and warnings of other packages, to stderr.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json` writes an object per line, with the fields of each call.
    """
    handler = logging.StreamHandler()
    text = _OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(_Json() if log_format == "json" else text)
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


class _Json(logging.Formatter):
    """One JSON object: `time` (RFC 3339, UTC), `level`, `logger`, `message` or the fields of a call, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, "fields", None)
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
