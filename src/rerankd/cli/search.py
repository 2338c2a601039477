"""`rerankd search PATH "query"`: finds parts of files in an index on this machine, and reranks them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli import ranked
from rerankd.cli.indexing import FILES, FileOptions, opened
from rerankd.cli.options import FLAG, NONE_GIVEN, NUMBER, Given, command, settings_from, takes
from rerankd.cli.rank import output_of
from rerankd.cli.records import SourcedDocument
from rerankd.cli.scoring import Outcome, RemoteOptions, Task, ask, score
from rerankd.config import RankSettings
from rerankd.search.order import shown_order
from rerankd.search.stored import Hit
from rerankd.types import Score

app = command("search")


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
    """Search the files of a folder: BM25 finds parts of them, the model ranks these.

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
    hits = opened(path, files).search(query, depth)
    if not hits:
        print(f"Nothing in {path} has a word of the query.", file=sys.stderr)
        return 1
    outcome = _unranked(hits) if not rerank else None
    if outcome is None:
        with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
            task = Task(query, [hit.document for hit in hits], None, instruct)
            outcome = score(task, settings, False, None) if settings else ask(task, remote, given.get("model"))
    scores = {score.index: score for score in outcome.ranked}
    order = shown_order([score.index for score in outcome.ranked], [hit.path for hit in hits], outcome.model)
    shown = [scores[place] for place in order[: top_n or None]]
    documents = [SourcedDocument(hit.source, hit.text) for hit in hits]
    results = [ranked.Ranked(place, s.index, s.score, s.logit, documents[s.index]) for place, s in enumerate(shown, 1)]
    ranked.write(ranked.Ranking(results, outcome.model, outcome.warnings), output or output_of(as_json))
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _unranked(hits: Sequence[Hit]) -> Outcome:
    return Outcome([Score(index, hit.score) for index, hit in enumerate(hits)], (), "BM25")
