"""`rerankd batch INPUT … OUTPUT`: scores files of any size, and resumes after any interruption."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from rerankd.batch.manifest import plan
from rerankd.batch.rows import Columns
from rerankd.batch.run import Progress, run_batch
from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import NONE_GIVEN, NUMBER, Given, command, settings_from, takes
from rerankd.cli.passage_options import WHOLE, PassageOptions
from rerankd.cli.progress import LoadingBar, duration
from rerankd.config import BatchSettings
from rerankd.errors import InvalidRequest
from rerankd.resumable import model_identity
from rerankd.types import DEFAULT_INSTRUCT
from rerankd.version import __version__

if TYPE_CHECKING:
    from rerankd.engine.scorer import EngineScorer

app = command("batch")

EVERY_S = 10.0
"""Seconds between two lines of progress."""

FEW_SHARED = 2.0
"""Pairs per query in a unit; below, grouped input would be faster."""

FIELD = Parameter(metavar="FIELD")


@app.default
@takes(BatchSettings)
def batch(
    *paths: Annotated[str, Parameter(name="INPUT")],
    query: Annotated[str, FIELD] = "query",
    document: Annotated[str, FIELD] = "document",
    id: Annotated[str, FIELD] = "id",
    instruct: Annotated[str, Parameter(metavar="TEXT", show_default=False)] = DEFAULT_INSTRUCT,
    format: Literal["jsonl", "parquet"] | None = None,
    max_errors: Annotated[int | None, NUMBER] = None,
    passages: PassageOptions = WHOLE,
    given: Given = NONE_GIVEN,
) -> int:
    """Score the pairs of JSONL or Parquet files, and write one file of scores for each part of them.

    The same command continues after an interruption of any kind.

    Args:
        paths: files or patterns, and the folder for the results as the last one
        query: the field with the query
        document: the field with a document, or with a list of documents ('documents' is found, too)
        id: the field that names a record in the results; without it, its file and place
        instruct: the sorting task (default: the model card's)
        format: of the results (default: that of the first file)
        max_errors: end after more than N rows that cannot be scored (default: any number)
    """
    if len(paths) < 2:
        raise InvalidRequest("Give at least one input file, and the folder for the results as the last argument.")
    inputs, output = _files(paths[:-1]), Path(paths[-1])
    settings, divided = settings_from(BatchSettings, given), passages.split
    log_to_stderr("info")
    with closing(_start(settings)) as scorer:
        identity = model_identity(scorer.info, __version__)
        manifest = plan(inputs, identity, instruct, Columns(query, document, id), format, divided)
        ended = run_batch(manifest, output, scorer, _Report(), max_errors, _units_at_once(settings))
    print(_summary(ended, output))
    return 0


def _start(settings: BatchSettings) -> EngineScorer:
    """Without a cache of scores: the results must not depend on earlier calls."""
    from rerankd.startup import chosen, start_scorer

    choice = chosen(settings, settings.model, fallback=False)
    with LoadingBar() as bar:
        if settings.on_ray:
            from rerankd.cluster.settings import replicas_of
            from rerankd.cluster.start import start_on_replicas

            return start_on_replicas(replicas_of(settings, choice), score_cache_mb=0, progress=bar)
        return start_scorer(choice, score_cache_mb=0, skip_self_test=settings.skip_self_test, progress=bar)


def _units_at_once(settings: BatchSettings) -> int:
    """Enough parts for every replica while the first unit ends."""
    return 1 + (settings.replicas or 1) if settings.on_ray else 1


def _files(patterns: Sequence[str]) -> list[Path]:
    """Every file once, sorted within a pattern."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = [Path(pattern)] if Path(pattern).exists() else sorted(map(Path, glob(pattern, recursive=True)))
        if not paths:
            raise InvalidRequest(f"There is no file {pattern}.")
        for path in paths:
            if path.is_dir():
                raise InvalidRequest(f"{path} is a folder: pass its files, as in '{path}/*.jsonl'.")
            found[path] = None
    return list(found)


class _Report:
    """Prints a line after the first unit, and then at most one in EVERY_S."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next or progress.share >= 1:
            self._next = time.monotonic() + EVERY_S
            print(_line(progress), file=sys.stderr)


def _line(progress: Progress) -> str:
    left = progress.seconds_left
    ending = "" if left is None or progress.share >= 1 else f", {duration(left)} left"
    errors = f", {_number(progress.errors, 'error')}" if progress.errors else ""
    return (
        f"{progress.share:6.1%}  {progress.pairs:,} pairs, {progress.pairs_per_s:,.1f} a second{errors}{ending}"
        f" ({_number(progress.units, 'unit')})"
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count > 1 else ''}"


def _summary(progress: Progress, output: Path) -> str:
    if not progress.pairs:
        return f"{output} was complete: nothing is left to score."
    lines = [f"{_number(progress.pairs, 'pair')} in {duration(progress.seconds)}: {output}"]
    if progress.errors:
        lines.append(f"{progress.errors:,} of them could not be scored; the first error: {progress.first_error}")
    shared = progress.pairs / progress.queries
    if shared < FEW_SHARED:
        lines.append(f"{shared:.1f} documents a query and unit: input that is sorted by query is faster.")
    return "\n".join(lines)
