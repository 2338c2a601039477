"""Runs the missing units of a batch, one after another or some at a time; reads the next one meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rerankd.batch.folder import OutputFolder
from rerankd.batch.manifest import Manifest
from rerankd.batch.rows import ScoredPair
from rerankd.batch.unit import Unit, read_unit, rows_of, submit_unit
from rerankd.errors import Busy, InvalidRequest
from rerankd.ranking import Submits
from rerankd.resumable import Pace
from rerankd.types import Logits


@dataclass
class Progress(Pace):
    """How far a run is. `share` counts units by size.

    Attributes:
        pairs, errors: of this run.
        queries: distinct queries, summed over units; pairs / queries is how often a query's prefix was shared.
    """

    units: int
    pairs: int = 0
    errors: int = 0
    queries: int = 0
    first_error: str = ""

    @property
    def pairs_per_s(self) -> float:
        return self.pairs / max(self.seconds, 1e-9)


def run_batch(
    manifest: Manifest,
    output: Path,
    scorer: Submits,
    report: Callable[[Progress], None] = lambda progress: None,
    max_errors: int | None = None,
    at_once: int = 1,
) -> Progress:
    """Scores every unit that has no output yet. The same units give the same files, whatever ran before.

    Args:
        report: called after each unit.
        max_errors: rows with an error after which the run ends; None for any number.
        at_once: units that the scorer has at a time, so that none of its replicas waits.

    Raises:
        InvalidRequest: the folder belongs to another batch or cannot be written; too many errors; or the first unit is
            all errors. What is finished stays.
        InferenceError: the model failed.
    """
    folder = OutputFolder(output, manifest)
    total = sum(map(manifest.size_of, range(len(manifest.parts))))
    with folder.locked(), ThreadPoolExecutor(1, thread_name_prefix="rerankd-batch") as reader:
        missing = folder.missing()
        done = 1 - sum(map(manifest.size_of, missing)) / total
        progress = Progress(len(manifest.parts), share=done, begun_at=done)
        units = _read(reader, missing, partial(read_unit, manifest, scorer=scorer))
        for unit, rows in _scored(units, scorer, at_once):
            _refuse_errors(progress, rows, max_errors)
            folder.write(unit.number, rows)
            share = manifest.size_of(unit.number) / total
            _count(progress, rows, len({pair.query for pair in unit.pairs}), share)
            report(progress)
    return progress


def _read(reader: ThreadPoolExecutor, numbers: Sequence[int], read: Callable[[int], Unit]) -> Iterator[Unit]:
    """The units in order; the next one is read meanwhile."""
    coming: Future[Unit] | None = None
    for place, number in enumerate(numbers):
        unit = (coming or reader.submit(read, number)).result()
        coming = reader.submit(read, numbers[place + 1]) if place + 1 < len(numbers) else None
        yield unit


def _scored(units: Iterable[Unit], scorer: Submits, at_once: int) -> Iterator[tuple[Unit, list[ScoredPair]]]:
    """Each unit with its rows, in order. A unit for which the scorer's queue has no room waits for the one before."""
    running: deque[tuple[Unit, Future[Logits] | None]] = deque()
    try:
        for unit in units:
            while not _queued(unit, scorer, running):
                first, scoring = running.popleft()
                yield first, rows_of(first, scoring)
            if len(running) == at_once:
                first, scoring = running.popleft()
                yield first, rows_of(first, scoring)
        while running:
            first, scoring = running.popleft()
            yield first, rows_of(first, scoring)
    finally:
        for _, scoring in running:
            if scoring is not None:
                scoring.cancel()


def _queued(unit: Unit, scorer: Submits, running: deque[tuple[Unit, Future[Logits] | None]]) -> bool:
    """Whether the unit is queued behind the running ones; False where it waits for one of them."""
    try:
        running.append((unit, submit_unit(unit, scorer)))
    except Busy:
        if not running:
            raise
        return False
    return True


def _refuse_errors(progress: Progress, rows: list[ScoredPair], max_errors: int | None) -> None:
    errors = [row.error for row in rows if row.error]
    if not errors:
        return
    if progress.pairs == 0 and len(errors) == len(rows):
        raise InvalidRequest(
            f"No row of the first unit can be scored: {errors[0]}. Check --query, --document and --id."
        )
    if max_errors is not None and progress.errors + len(errors) > max_errors:
        raise InvalidRequest(
            f"More than {max_errors} rows have an error (--max-errors); the last one: {errors[-1]}. The same command "
            "continues after the finished units."
        )


def _count(progress: Progress, rows: list[ScoredPair], queries: int, share: float) -> None:
    progress.share = min(1.0, progress.share + share)
    progress.pairs += len(rows)
    progress.errors += sum(bool(row.error) for row in rows)
    progress.queries += queries
    progress.first_error = progress.first_error or next((row.error for row in rows if row.error), "")
