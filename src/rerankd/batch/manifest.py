"""The contents of a batch: its input, its units and everything that its scores depend on. Written once, then checked.

A resume continues only what it would begin in the same way: the same manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankd.batch.files import Format, Part, format_of, parts_of
from rerankd.batch.rows import Columns
from rerankd.errors import InvalidRequest
from rerankd.splitting import MAX_CALL_PASSAGES
from rerankd.types import Passages

UNIT_BYTES = 4_000_000
"""Bytes of JSONL in a unit: some 5,000 pairs of 200 tokens, a minute on a fast processor, a second on a GPU."""

UNIT_ROWS = 5_000
"""Rows of Parquet in a unit."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One batch.

    Attributes:
        inputs: (path, size, mtime in ns) of each file.
        model: identifies the weights and the prompts.
        parts: (number of the input, start, end); unit i reads the i-th.
        passages: how documents are split; None: they are not.
    """

    inputs: tuple[tuple[str, int, int], ...]
    model: Mapping[str, str]
    instruct: str
    columns: Columns
    output: Format
    parts: tuple[tuple[int, int, int], ...]
    passages: Passages | None = None

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
    inputs: Sequence[Path],
    model: Mapping[str, str],
    instruct: str,
    columns: Columns,
    output: Format | None = None,
    passages: Passages | None = None,
) -> Manifest:
    """Splits the input into units.

    Args:
        output: the format of the output; None for that of the first input.
        passages: how documents are split; None: they are not.

    Raises:
        InvalidRequest: a file is missing, empty or unreadable.
    """
    if not inputs:
        raise InvalidRequest("There is no input file.")
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in inputs]
    unit_rows = UNIT_ROWS if passages is None else min(UNIT_ROWS, MAX_CALL_PASSAGES // passages.max_per_doc)
    parts = [
        (number, part.start, part.end)
        for number, (path, _, _) in enumerate(files)
        for part in parts_of(Path(path), UNIT_BYTES, unit_rows)
    ]
    if not parts:
        raise InvalidRequest(f"{inputs[0]} is empty.")
    form = output or format_of(inputs[0])
    return Manifest(tuple(files), dict(model), instruct, columns, form, tuple(parts), passages)
