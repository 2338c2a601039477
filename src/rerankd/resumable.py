"""A long run that can be resumed: the conditions of its results, written when it begins and compared when it resumes,
and how far it is. Knows no field.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rerankd.errors import InvalidRequest
from rerankd.types import ModelInfo

SAMPLE_BYTES = 1 << 20


class Plan(Protocol):
    """Any dataclass of values that JSON can hold."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


@dataclass(kw_only=True)
class Pace:
    """How far a run is, and how fast.

    Attributes:
        share: of all its work, that of earlier runs included, in [0, 1].
        begun_at: the share when this run began.
    """

    share: float = 0.0
    begun_at: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since this run began."""
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float | None:
        """By the rate of this run; None before its first work is done."""
        gained = self.share - self.begun_at
        return None if gained <= 0 else (1 - self.share) / gained * self.seconds


def model_identity(info: ModelInfo, version: str) -> dict[str, str]:
    """Everything that scores depend on. Size and samples identify the weights, which are not read whole."""
    known = {"name": info.name, "dtype": info.dtype, "prompt": info.prompt_id, "rerankd": version}
    if info.folder:
        known["weights"] = _fingerprint(Path(info.folder))
    return known


def _fingerprint(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix in (".safetensors", ".bin", ".json") and path.is_file():
            found.update(f"{path.name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                found.update(file.read(SAMPLE_BYTES))
                file.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()[:16]


def to_json(plan: Plan) -> str:
    """The plan's file, one value for each field, with a digest over all."""
    values = json.loads(json.dumps(asdict(plan)))
    return json.dumps({"digest": _digest(values), **values}, indent=1)


def differences(kept: str, plan: Plan) -> list[str]:
    """How the file of an earlier run differs from a plan: a clause for each field; empty if it does not.

    Raises:
        InvalidRequest: the file is damaged.
    """
    try:
        before: dict[str, Any] = json.loads(kept)
        digest = before.pop("digest")
    except (ValueError, KeyError, AttributeError):
        raise InvalidRequest("The manifest of this folder is damaged: pass another folder.") from None
    if digest != _digest(before):
        raise InvalidRequest("The manifest of this folder was changed: pass another folder.")
    now = json.loads(json.dumps(asdict(plan)))
    return [_difference(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        return "; ".join(_difference(key, before.get(key), now.get(key)) for key in now if before.get(key) != now[key])
    if isinstance(before, list) and isinstance(now, list):
        return NAMES.get(name, name)
    return f"{name} ({_shown(before)} then, {_shown(now)} now)"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items() if one)
    return "none" if value is None else repr(value)


NAMES = {"inputs": "the input files", "parts": "their division into units"}
"""Names of values that are too long to print."""


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
