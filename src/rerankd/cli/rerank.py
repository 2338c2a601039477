"""`rerankd rerank RUN -o OUT`: puts the candidates of a run in a new order, in one job that can be resumed."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import FLAG, NONE_GIVEN, NUMBER, Given, command, settings_from, takes
from rerankd.cli.progress import duration
from rerankd.cli.scoring import RemoteOptions, ranker_of
from rerankd.config import RankSettings
from rerankd.jobs.job import Job, Plan, Progress
from rerankd.rankers import Ranker
from rerankd.resumable import model_identity
from rerankd.runs.layouts import inputs_of
from rerankd.version import __version__

app = command("rerank")

LOCAL_AT_ONCE, REMOTE_AT_ONCE = 16, 4
"""Queries that are scored at the same time: small ones fill a batch together; a server is not flooded."""

EVERY_S = 30.0
"""Seconds between two lines of progress."""

FILE = Parameter(metavar="FILE")


@app.default
@takes(RankSettings)
def rerank(
    run: Annotated[Path, Parameter(name="RUN")],
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="FILE")],
    queries: Annotated[Path | None, FILE] = None,
    corpus: Annotated[Path | None, FILE] = None,
    of_folder: Annotated[Path | None, FILE, Parameter("--run")] = None,
    depth: Annotated[int, NUMBER] = 100,
    instruct: Annotated[str | None, Parameter(metavar="TEXT", show_default=False)] = None,
    skip_missing: Annotated[bool, FLAG] = False,
    restart: Annotated[bool, FLAG] = False,
    remote: RemoteOptions = RemoteOptions(),  # noqa: B008 - frozen
    given: Given = NONE_GIVEN,
) -> int:
    """Rerank the candidates of a run, and write a run.

    The same command continues after an interruption of any kind.

    Args:
        run: a run (TREC, MS MARCO, JSONL, Parquet), a BEIR folder, or JSONL with queries and their documents
        output: the result; .trec, .jsonl or .parquet says its format
        queries: the queries' texts (`qid⇥text`, JSONL or Parquet)
        corpus: the documents' texts (`docid⇥text`, JSONL or Parquet), of any size
        of_folder: the run, where RUN is a folder
        depth: candidates of each query that are scored and written
        instruct: the sorting task (default: the model card's, or the server's)
        skip_missing: leave out documents that the corpus lacks
        restart: forget what an unfinished job has scored
    """
    settings = settings_from(RankSettings, given)
    log_to_stderr("info")
    inputs = inputs_of(run, of_folder, queries, corpus)
    files = tuple((str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in inputs.files)
    model = given.get("model")
    with ranker_of(remote, settings, model) as ranker:
        plan = Plan(files, _identity(ranker, remote, settings, model), instruct, depth, skip_missing)
        at_once = REMOTE_AT_ONCE if remote.url else LOCAL_AT_ONCE
        job = Job(output, plan, inputs.run, inputs.queries, at_once)
        try:
            ended = job.score(ranker, inputs.documents, _Report(), restart=restart)
        except KeyboardInterrupt:
            print(f"\nStopped. To continue: rerankd {shlex.join(sys.argv[1:])}", file=sys.stderr)
            raise
    for line in _summary(ended, output):
        print(line, file=sys.stderr)
    return 0


def _identity(ranker: Ranker, remote: RemoteOptions, settings: RankSettings, model: str | None) -> dict[str, str]:
    """What tells the scorer from others."""
    if remote.url:
        return {"name": model or remote.url, "url": remote.url, "dialect": remote.dialect}
    from rerankd.local import Reranker

    assert isinstance(ranker, Reranker)
    identity = model_identity(ranker.info, __version__)
    return {**identity, "then": f"{settings.then}, first {settings.then_top}"} if settings.then else identity


class _Report:
    """Prints a line after the first query, and then at most one in EVERY_S."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next or progress.queries == progress.of:
            self._next = time.monotonic() + EVERY_S
            left = progress.seconds_left
            ending = "" if left is None or progress.queries == progress.of else f", {duration(left)} left"
            rate = progress.pairs / max(progress.seconds, 1e-9)
            print(
                f"{progress.share:6.1%}  {progress.queries:,} of {progress.of:,} queries, {rate:,.1f} documents a "
                f"second{ending}",
                file=sys.stderr,
            )


def _summary(progress: Progress, output: Path) -> list[str]:
    lines = [f"{progress.pairs:,} documents of {progress.of:,} queries in {duration(progress.seconds)}: {output}"]
    if progress.missing:
        lines.append(f"{progress.missing:,} documents are not in the corpus and were left out.")
    warnings = list(progress.warnings)
    lines += [f"warning: {warning}" for warning in warnings[:3]]
    if len(warnings) > 3:
        lines.append(f"and {len(warnings) - 3:,} more warnings.")
    return lines
