"""What a batch consists of: its input, its units and everything that its scores depend on. Written once, then checked.

A resume continues only what it would begin in the same way: the same manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerankd.batch.files import Format, Part, format_of, parts_of
from rerankd.batch.rows import Columns
from rerankd.errors import InvalidRequest
from rerankd.types import ModelInfo

UNIT_BYTES = 4_000_000
"""Of JSONL; some 5,000 pairs of 200 tokens, a minute of work on a fast processor and a second on a GPU."""

UNIT_ROWS = 5_000
"""Of Parquet."""

SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """One batch.

    Attributes:
        inputs: (path, size, mtime in ns) of each file.
        model: what tells one set of weights and prompts from another.
        parts: (number of the input, start, end); unit i reads the i-th.
    """

    inputs: tuple[tuple[str, int, int], ...]
    model: Mapping[str, str]
    instruct: str
    columns: Columns
    output: Format
    parts: tuple[tuple[int, int, int], ...]

    def part(self, unit: int) -> Part:
        """The input of a unit."""
        number, start, end = self.parts[unit]
        return Part(Path(self.inputs[number][0]), start, end)

    def file_of(self, unit: int) -> str:
        """The name of a unit's output."""
        return f"part-{unit:06}.{self.output}"

    def size_of(self, unit: int) -> int:
        """Bytes of input, or rows: a measure of progress within one batch."""
        _, start, end = self.parts[unit]
        return end - start


def plan(
    inputs: Sequence[Path], model: Mapping[str, str], instruct: str, columns: Columns, output: Format | None = None
) -> Manifest:
    """Splits the input into units.

    Args:
        output: the format of the output; None for that of the first input.

    Raises:
        InvalidRequest: a file is missing, empty or unreadable.
    """
    if not inputs:
        raise InvalidRequest("There is no input file.")
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in inputs]
    parts = [
        (number, part.start, part.end)
        for number, (path, _, _) in enumerate(files)
        for part in parts_of(Path(path), UNIT_BYTES, UNIT_ROWS)
    ]
    if not parts:
        raise InvalidRequest(f"{inputs[0]} is empty.")
    return Manifest(tuple(files), dict(model), instruct, columns, output or format_of(inputs[0]), tuple(parts))


def model_identity(info: ModelInfo, version: str) -> dict[str, str]:
    """What scores depend on. The weights are known by their size and by samples, not read whole."""
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


def to_json(manifest: Manifest) -> str:
    """The manifest's file, one value for each field, with a digest over all."""
    values = json.loads(json.dumps(asdict(manifest)))
    return json.dumps({"digest": _digest(values), **values}, indent=1)


def differences(kept: str, manifest: Manifest) -> list[str]:
    """How a manifest's file differs from a manifest: a clause for each field; empty if it does not.

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
    now = json.loads(json.dumps(asdict(manifest)))
    return [_difference(name, before.get(name), now[name]) for name in now if before.get(name) != now[name]]


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        return "; ".join(_difference(key, before.get(key), now.get(key)) for key in now if before.get(key) != now[key])
    if name in ("inputs", "parts"):
        return "the input files" if name == "inputs" else "their division into units"
    return f"{name} ({before!r} then, {now!r} now)"


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
