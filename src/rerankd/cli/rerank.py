"""`rerankd rerank RUN -o OUT`: puts the candidates of a run in a new order, in one job that can be resumed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from cyclopts import Parameter

from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import COUNT, FLAG, NONE_GIVEN, OUTPUT, Given, command, settings_from, takes
from rerankd.cli.passage_options import WHOLE, PassageOptions
from rerankd.cli.reranking import (
    LOCAL_AT_ONCE,
    REMOTE_AT_ONCE,
    Report,
    beside,
    bm25,
    identity,
    pause_after,
    print_summary,
    prompt_text,
    stamped,
)
from rerankd.cli.scoring import LOCAL, RemoteOptions, ranker_of
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest
from rerankd.jobs.job import Job, Plan, check
from rerankd.runs.collection import collection_in
from rerankd.runs.layouts import Inputs, inputs_of, retrieved
from rerankd.runs.lines import STDIN
from rerankd.search.corpus import IDENTITY

app = command("rerank")

FILE = Parameter(metavar="FILE")
First = Literal["bm25"]
Format = Literal["trec", "jsonl"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the candidates and the texts come from.

    Attributes:
        queries: the queries' texts (`qid⇥text`, JSONL or Parquet)
        corpus: the documents' texts (`docid⇥text`, JSONL or Parquet), of any size
        of_folder: the run, where RUN is a folder
        first: where RUN is a folder, find the candidates of its judged queries, and write them beside the result
        split: the judgements that choose the queries of --first
        subset: which test collection of a Hugging Face snapshot, where it holds several, such as one for each language
    """

    queries: Annotated[Path | None, FILE] = None
    corpus: Annotated[Path | None, FILE] = None
    of_folder: Annotated[Path | None, FILE, Parameter("--run")] = None
    first: Annotated[First | None, Parameter(show_default=False)] = None
    split: Annotated[str, Parameter(metavar="NAME")] = "test"
    subset: Annotated[str | None, Parameter(metavar="NAME")] = None


NO_SOURCES = Sources()


@app.default
@takes(RankSettings)
def rerank(
    run: Annotated[Path, Parameter(name="RUN")],
    *,
    output: Annotated[Path, OUTPUT, Parameter(name=("--output", "-o"))],
    sources: Sources = NO_SOURCES,
    depth: Annotated[int, COUNT] = 100,
    instruct: Annotated[str | None, Parameter(metavar="TEXT", show_default=False)] = None,
    format: Format = "trec",
    skip_missing: Annotated[bool, FLAG] = False,
    restart: Annotated[bool, FLAG] = False,
    passages: PassageOptions = WHOLE,
    remote: RemoteOptions = LOCAL,
    given: Given = NONE_GIVEN,
) -> int:
    """Rerank the candidates of a run, and write a run.

    The same command continues after an interruption of any kind.

    Args:
        run: a run (TREC, MS MARCO, JSONL, Parquet), a BEIR folder, or JSONL with queries and their documents
        output: the result; .trec, .jsonl or .parquet says its format; '-' is stdout, and such a job cannot be continued
        depth: candidates of each query that are scored and written
        instruct: the sorting task of queries without one (default: the model card's, or the server's)
        format: of stdout
        skip_missing: leave out documents that the corpus lacks
        restart: forget what an unfinished job has scored
    """
    settings, divided = settings_from(RankSettings, given), passages.split
    if divided and settings.then:
        raise InvalidRequest("A job keeps the passages of one model: leave --then out.")
    log_to_stderr("info")
    with _file_of(output, format, sources.first) as out:
        inputs = _inputs(run, sources, depth, out)
        check(out, inputs.run, inputs.queries)
        model = given.get("model")
        with ranker_of(remote, settings, model) as ranker:
            by = identity(ranker, remote, settings, model)
            first = IDENTITY if sources.first else ""
            plan = Plan(stamped(inputs.files), by, instruct, depth, skip_missing, first, divided)
            at_once, text = REMOTE_AT_ONCE if remote.url else LOCAL_AT_ONCE, prompt_text(ranker, instruct)
            job = Job(out, plan, inputs.run, inputs.queries, at_once, text)
            with _saying_how_to_continue(output), Report() as report:
                ended = job.score(ranker, inputs.documents, report, restart=restart, patience=pause_after)
    print_summary(ended, output)
    return 0


@contextmanager
def _saying_how_to_continue(output: Path) -> Iterator[None]:
    """After Ctrl-C. A job with its result on stdout cannot be continued."""
    try:
        yield
    except KeyboardInterrupt:
        if output != STDIN:
            print(f"\nStopped. To continue: rerankd {shlex.join(sys.argv[1:])}", file=sys.stderr)
        raise


@contextmanager
def _file_of(output: Path, format: Format, first: First | None) -> Iterator[Path]:
    """Where the result is written. That of stdout goes there at the end, and its file goes."""
    if output != STDIN:
        yield output
        return
    if first:
        raise InvalidRequest("--first writes its run beside the result: pass a file as --output.")
    print("The result goes to stdout: this job cannot be continued after an interruption.", file=sys.stderr)
    with TemporaryDirectory(prefix="rerankd-") as folder:
        out = Path(folder, f"result.{format}")
        yield out
        with out.open(encoding="utf-8") as file:
            shutil.copyfileobj(file, sys.stdout)


def _inputs(run: Path, sources: Sources, depth: int, output: Path) -> Inputs:
    texts = sources.queries, sources.corpus, sources.subset
    if sources.first is None:
        return inputs_of(run, sources.of_folder, *texts)
    if sources.of_folder or not run.is_dir():
        raise InvalidRequest("--first finds the candidates of a folder's queries: pass a folder, and no run.")
    found = retrieved(collection_in(run, sources.split, *texts), bm25(depth, beside(output)))
    print(f"First stage, {_counted(found)}: {beside(output)}", file=sys.stderr)
    return found


def _counted(found: Inputs) -> str:
    """How many queries have candidates, and how many have none."""
    without = len(found.queries) - len(found.run.ranked)
    said = f"{len(found.run.ranked):,} queries"
    return f"{said} ({without:,} more share no word with a document, and are left out)" if without else said
