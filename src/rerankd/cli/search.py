"""`rerankd search PATH "query"`: finds parts of files in an index on this machine, and reranks them."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from rerankd.cli import ranked
from rerankd.cli.documents import bytes_of
from rerankd.cli.folders import LeftOut, Selection, files_in
from rerankd.cli.options import FLAG, NONE_GIVEN, NUMBER, Given, command, settings_from, takes
from rerankd.cli.progress import LoadingBar
from rerankd.cli.rank import PATTERNS, SIZE, output_of
from rerankd.cli.records import SourcedDocument
from rerankd.cli.scoring import Outcome, RemoteOptions, Task, ask, score
from rerankd.cli.text import text_of
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest
from rerankd.search.index import Hit, Index
from rerankd.types import Score
from rerankd.user_folders import cache_folder

app = command("search")


@Parameter(name="*", group=Group("Files", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Which files of the folder are indexed.

    Attributes:
        include: only such files: '*.md', 'docs/**'; repeatable
        exclude: no such files; repeatable
        no_ignore: also read what .gitignore names, and node_modules, dist, minified and lock files
        max_filesize: skip larger files: 500K, 2M
        index: the folder of the index (default: one for each path and choice of files, in the user's cache)
        rebuild: remove the index and build it again
    """

    include: Annotated[tuple[str, ...], PATTERNS] = ()
    exclude: Annotated[tuple[str, ...], PATTERNS] = ()
    no_ignore: Annotated[bool, FLAG] = False
    max_filesize: Annotated[int, SIZE] = 1_000_000
    index: Annotated[Path | None, Parameter(metavar="DIR", show_default=False)] = None
    rebuild: Annotated[bool, FLAG] = False


FILES = FileOptions()
LOCAL = RemoteOptions()


@app.default
@takes(RankSettings)
def search(
    path: Annotated[Path, Parameter(name="PATH")],
    query: Annotated[str, Parameter(name="QUERY")],
    /,
    *,
    top_n: Annotated[int, NUMBER] = 10,
    depth: Annotated[int, NUMBER] = 50,
    rerank: Annotated[bool, Parameter(negative="--no-rerank")] = True,
    instruct: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    output: Annotated[ranked.Output | None, Parameter(show_default=False)] = None,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    files: FileOptions = FILES,
    remote: RemoteOptions = LOCAL,
    given: Given = NONE_GIVEN,
) -> int:
    """Search the text files of a folder: BM25 finds parts of them, the model ranks these.

    The first search builds the index, later ones update it.

    Args:
        path: a folder, or one file
        query: what to look for, in any language
        top_n: results to show, 0 for all
        depth: parts that BM25 finds and the model ranks
        rerank: rank with the model; --no-rerank keeps BM25's order and scores
        instruct: the task that the model sorts for
        output: as of rerankd rank: a table, tsv, csv, json or jsonl
        as_json: the same as --output json
    """
    settings = None if remote.url else settings_from(RankSettings, given)
    hits = found_in(path, query, depth, files)
    if not hits:
        print(f"Nothing in {path} has a word of the query.", file=sys.stderr)
        return 1
    outcome = _unranked(hits) if not rerank else None
    if outcome is None:
        with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
            task = Task(query, [hit.text for hit in hits], None, instruct)
            outcome = score(task, settings, False, None) if settings else ask(task, remote, given.get("model"))
    shown = outcome.ranked[: top_n or None]
    documents = [SourcedDocument(source_of(path, hit), hit.text) for hit in hits]
    results = [ranked.Ranked(place, s.index, s.score, s.logit, documents[s.index]) for place, s in enumerate(shown, 1)]
    ranked.write(ranked.Ranking(results, outcome.model, outcome.warnings), output or output_of(as_json))
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _unranked(hits: Sequence[Hit]) -> Outcome:
    return Outcome([Score(index, hit.score) for index, hit in enumerate(hits)], (), "BM25")


def source_of(path: Path, hit: Hit) -> str:
    """`file:12-30`, as seen from the folder that was searched."""
    name = Path(hit.path).relative_to(path.resolve()) if path.is_dir() else Path(hit.path).name
    return f"{name}:{hit.first}" if hit.first == hit.last else f"{name}:{hit.first}-{hit.last}"


def found_in(path: Path, query: str, depth: int, options: FileOptions) -> list[Hit]:
    """Updates the index of a folder or file, and searches it."""
    if not path.exists():
        raise InvalidRequest(f"There is no {path}.")
    selection = Selection(options.include, options.exclude, options.max_filesize, not options.no_ignore)
    folder = options.index or _default_folder(path, selection)
    if options.rebuild and folder.exists():
        Index(folder)  # refuses to remove a folder that is no index
        shutil.rmtree(folder)
    left_out = LeftOut()
    files = files_in(path.resolve(), selection, left_out) if path.is_dir() else iter([path.resolve()])
    index = Index(folder)
    with LoadingBar() as bar:
        done = index.update(files, _read, lambda update: bar(f"indexing {path}: {update.added:,} new files", 0.0))
    if str(left_out):
        print(f"note: {left_out}", file=sys.stderr)
    if done.unread:
        print(f"note: {done.unread:,} new files are not text, such as pictures", file=sys.stderr)
    return index.search(query, depth)


def _read(path: Path) -> str:
    return text_of(str(path), bytes_of(path))


def _default_folder(path: Path, selection: Selection) -> Path:
    chosen = json.dumps([str(path.resolve()), selection.include, selection.exclude, selection.max_bytes])
    key = hashlib.sha256(f"{chosen}{selection.ignoring}".encode()).hexdigest()[:16]
    return cache_folder() / "search" / key
