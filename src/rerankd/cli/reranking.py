"""Shared by `rerankd rerank` and `rerankd eval DIR`: the first stage, and one job with its progress on stderr."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rerankd.cli.progress import LoadingBar, duration
from rerankd.cli.scoring import RemoteOptions
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest
from rerankd.jobs.job import Progress
from rerankd.rankers import Ranker
from rerankd.resumable import model_identity
from rerankd.runs.layouts import FirstStage
from rerankd.runs.lines import STDIN
from rerankd.runs.run import Candidate, Run, name_of
from rerankd.runs.texts import Query, documents_of
from rerankd.runs.written import check_ids, format_of, write_run
from rerankd.search.corpus import IDENTITY, CorpusIndex
from rerankd.user_folders import cache_folder
from rerankd.version import __version__

LOCAL_AT_ONCE, REMOTE_AT_ONCE = 16, 4
"""Queries that are scored at the same time: small ones fill a batch together; a server is not flooded."""

EVERY_S = 30.0
"""Seconds between two lines of progress."""

LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 600.0
"""For a server that refuses calls because there are too many."""

Stamps = tuple[tuple[str, int, int], ...]


def stamped(files: Iterable[Path]) -> Stamps:
    """Each file with its size and time, which identify a changed file; stdin has none.

    Raises:
        InvalidRequest: a file is not there.
    """
    return tuple(_stamp(path) for path in files)


def _stamp(path: Path) -> tuple[str, int, int]:
    if path == STDIN:
        return "-", 0, 0
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from None
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def identity(ranker: Ranker, remote: RemoteOptions, settings: RankSettings, model: str | None) -> dict[str, str]:
    """The identity of a scorer.

    Args:
        model: as the command line names it.
    """
    if remote.url:
        return {"name": model or remote.url, "url": remote.url, "dialect": remote.dialect}
    from rerankd.local import Reranker

    assert isinstance(ranker, Reranker)
    found = model_identity(ranker.info, __version__)
    return {**found, "then": f"{settings.then}, first {settings.then_top}"} if settings.then else found


def prompt_text(ranker: Ranker, instruct: str | None) -> str:
    """The prompt of a model of this machine, as it reads it; empty for a server, and for a model without a prompt.

    It comes from the tokens of a pair that the model scores: of two models, from those of the second one.
    """
    from rerankd.local import Reranker

    if not isinstance(ranker, Reranker) or ranker.info.prompt_id == "none":
        return ""
    return ranker.prompt_of(ranker.rank("{query}", ["{document}"], instruct=instruct).ranked[0])


def bm25(depth: int, path: Path) -> FirstStage:
    """A first stage that finds `depth` candidates of each query in an index of the corpus, and writes them to `path`.

    The index is made once for a corpus and kept in the user's cache.
    """

    def retrieve(corpus: Sequence[Path], queries: Mapping[str, Query]) -> Run:
        with LoadingBar() as bar:
            index = CorpusIndex.built(
                _index_folder(corpus), documents_of(corpus), lambda done: bar(f"indexing the corpus: {done:,}", 0.0)
            )
        found = {qid: index.search(query.text, depth) for qid, query in queries.items()}
        ranked = {qid: tuple(Candidate(*one) for one in some) for qid, some in found.items() if some}
        if not ranked:
            raise InvalidRequest("No document of the corpus has a word of a query: is it the right corpus?")
        run = Run("bm25", ranked)
        check_ids(format_of(path), run)
        write_run(path, run)
        return run

    return retrieve


def _index_folder(corpus: Sequence[Path]) -> Path:
    key = hashlib.sha256(f"{stamped(corpus)} {IDENTITY}".encode()).hexdigest()[:16]
    return cache_folder() / "bm25" / key


def beside(output: Path) -> Path:
    """The file of a result's first stage."""
    return output.with_name(f"{name_of(output)}.bm25.{'trec' if format_of(output) == 'trec' else 'jsonl'}")


class Report:
    """Shows how far a job is: a bar on a terminal; elsewhere a line after the first query and then each EVERY_S."""

    def __init__(self) -> None:
        self._bar = LoadingBar(0.0) if sys.stderr.isatty() else None
        self._next = 0.0

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)

    def __call__(self, progress: Progress) -> None:
        is_last = progress.queries == progress.of
        left = progress.seconds_left
        ending = "" if left is None or is_last else f", {duration(left)} left"
        rate = progress.pairs / max(progress.seconds, 1e-9)
        words = f"{progress.queries:,} of {progress.of:,} queries, {rate:,.1f} documents a second{ending}"
        if self._bar is not None:
            self._bar(words, progress.share)
        elif is_last or time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY_S
            print(f"{progress.share:6.1%}  {words}", file=sys.stderr)


def print_summary(progress: Progress, output: Path) -> None:
    """Prints the summary of a job on stderr."""
    lines = [f"{progress.pairs:,} documents of {progress.of:,} queries in {duration(progress.seconds)}: {output}"]
    if progress.missing:
        lines.append(f"{progress.missing:,} documents are not in the corpus and were left out.")
    warnings = list(progress.warnings)
    lines += [f"warning: {warning}" for warning in warnings[:3]]
    if len(warnings) > 3:
        lines.append(f"and {len(warnings) - 3:,} more warnings.")
    for line in lines:
        print(line, file=sys.stderr)


def pause_after(error: Exception, failures: int) -> float | None:
    """Seconds to wait for a server that refuses calls because there are too many; None after any other error.

    A server that asks for more than LONGEST_PAUSE_S ends the job, which the same command continues.
    """
    from rerankd.client.errors import RemoteRateLimited

    if not isinstance(error, RemoteRateLimited):
        return None
    growing = min(2.0 ** min(failures, 16), LONGEST_PAUSE_S)
    pause = growing if error.retry_after_s is None else error.retry_after_s
    if pause > LONGEST_PAUSE_S:
        return None
    print(f"{error} Waiting {duration(pause)}.", file=sys.stderr)
    return max(pause, LEAST_PAUSE_S)
