"""Reads the JSON files of a checkpoint defensively. Knows no model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankd.errors import CheckpointInvalid

MAX_BYTES = 64_000_000
MAX_SHOWN = 40


def read_json(path: Path) -> Any:
    """Parses a file.

    Raises:
        CheckpointInvalid: the file cannot be read, or is not JSON.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // 1_000_000} MB")
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError:
        raise CheckpointInvalid(f"{path} cannot be read: it is nested too deeply.") from None
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}.") from error


def read_object(path: Path) -> dict[str, Any]:
    """Like `read_json`, for a file that must contain an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointInvalid(f"{path} cannot be read: it is {_kind(value)}, not an object.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True, slots=True)
class Field:
    """The type of a field, and for numbers the inclusive range."""

    kind: type[int] | type[float] | type[bool]
    least: float = -math.inf
    most: float = math.inf

    def problem(self, value: Any) -> str | None:
        """The problem with a value, or None."""
        if self.kind is bool:
            return None if isinstance(value, bool) else f"is {_shown(value)}, not true or false"
        number = isinstance(value, int) or (self.kind is float and isinstance(value, float))
        if not number or isinstance(value, bool):
            return f"is {_shown(value)}, not {'a number' if self.kind is float else 'a whole number'}"
        if not self.least <= value <= self.most:
            return f"is {_shown(value)}; it may be {self.least:,.12g} to {self.most:,.12g}"
        return None


def check_fields(where: str, values: Mapping[str, Any], fields: Mapping[str, Field]) -> None:
    """Raises CheckpointInvalid if a field is missing, of another type or out of range.

    Args:
        where: the file, for the message.
    """
    if missing := [name for name in fields if values.get(name) is None]:
        raise CheckpointInvalid(f"{where} lacks {', '.join(missing)}.")
    for name, field in fields.items():
        if problem := field.problem(values[name]):
            raise CheckpointInvalid(f"{where}: {name} {problem}.")


def _shown(value: Any) -> str:
    """A value, shortened for a message."""
    if isinstance(value, dict | list):
        return _kind(value)
    try:
        text = json.dumps(value)
    except ValueError:  # a number with thousands of digits
        return "a huge number"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}.get(type(value), "a number")
