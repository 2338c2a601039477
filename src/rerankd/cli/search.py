"""`rerankd search PATH "query"`: finds parts of files in an index on this machine, and reranks them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli import ranked
from rerankd.cli.indexing import FILES, STAGE, FileOptions, StageOptions, embedder_of, opened
from rerankd.cli.marking import Span, best_sentences
from rerankd.cli.options import COUNT, FLAG, NONE_GIVEN, NUMBER, Given, command, settings_from, takes
from rerankd.cli.progress import LoadingBar
from rerankd.cli.rank import PATTERNS, output_of
from rerankd.cli.records import SourcedDocument
from rerankd.cli.scoring import LOCAL, RemoteOptions, ranker_of
from rerankd.config import RankSettings
from rerankd.errors import InvalidRequest
from rerankd.rankers import Ranker
from rerankd.search.hit import Hit
from rerankd.search.order import files_first, shown_order

app = command("search")


@app.default
@takes(RankSettings)
def search(
    path: Annotated[Path, Parameter(name="PATH")],
    query: Annotated[str, Parameter(name="QUERY")],
    /,
    *,
    top_n: Annotated[int, NUMBER] = 10,
    depth: Annotated[int, COUNT] = 50,
    rerank: Annotated[bool, Parameter(negative="--no-rerank")] = True,
    instruct: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    only: Annotated[tuple[str, ...], PATTERNS] = (),
    output: Annotated[ranked.Output | None, Parameter(show_default=False)] = None,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    files: FileOptions = FILES,
    stage: StageOptions = STAGE,
    remote: RemoteOptions = LOCAL,
    given: Given = NONE_GIVEN,
) -> int:
    """Search the files of a folder: a first stage finds parts of them, the model ranks these.

    The first search builds the index, later ones update it.

    Args:
        path: a folder, one file, or a corpus (BEIR folder, JSONL, Parquet, `docid⇥text`)
        query: what to look for, in any language
        top_n: results to show, 0 for all
        depth: parts that the first stage finds and the model ranks
        rerank: rank with the model; --no-rerank keeps the order and scores of the first stage
        instruct: the task that the model sorts for
        only: search only such files of the index: '*.md', 'docs/**'; repeatable
        output: as in rerankd rank: a table, tsv, csv, json or jsonl
        as_json: the same as --output json
    """
    if not query.strip():
        raise InvalidRequest("The query is empty.")
    settings = settings_from(RankSettings, given)
    embedder = embedder_of(stage, settings.device, offline=settings.offline)
    hits = opened(path, files, stage, embedder).search(query, depth, instruct=instruct, only=only)
    if not hits:
        return _say_nothing(path, stage.first, only)
    chosen = output or output_of(as_json)
    ranking = _unranked(hits, stage.first, top_n)
    if rerank:
        marks = chosen == "table" and sys.stdout.isatty()
        with redirect_stdout(sys.stderr), ranker_of(remote, settings, given.get("model")) as ranker:
            ranking = _ranked(ranker, query, hits, instruct, top_n, marks=marks)  # a library's words stay out
    ranked.write(ranking, chosen)
    for warning in ranking.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _say_nothing(path: Path, first: str, only: Sequence[str]) -> int:
    why = "has a word of the query" if first == "bm25" else "was found"
    where = f"the files of {path} that fit --only" if only else path
    print(f"Nothing in {where} {why}.", file=sys.stderr)
    return 1


def _ranked(
    ranker: Ranker, query: str, hits: Sequence[Hit], instruct: str | None, top_n: int, *, marks: bool
) -> ranked.Ranking:
    with LoadingBar() as bar:
        stage = f"ranking {len(hits):,} parts"
        documents = [hit.document for hit in hits]
        found = ranker.rank(
            query, documents, instruct=instruct, progress=lambda done: bar(stage, done / len(documents))
        )
        model = found.model or "a model without a name"
        scores = {score.index: score for score in found.ranked}
        order = shown_order(list(scores), [hit.whole for hit in hits], model)[: top_n or None]
        texts = [hits[place].text for place in order]
        best = best_sentences(ranker, query, texts, instruct) if marks else [None] * len(texts)
    results = [
        _result(place, hits[index], index, scores[index].score, scores[index].logit, mark)
        for place, (index, mark) in enumerate(zip(order, best, strict=True), 1)
    ]
    return ranked.Ranking(results, model, found.warnings)


def _unranked(hits: Sequence[Hit], first: str, top_n: int) -> ranked.Ranking:
    order = files_first(range(len(hits)), [hit.whole for hit in hits])[: top_n or None]
    results = [_result(place, hits[index], index, hits[index].score) for place, index in enumerate(order, 1)]
    return ranked.Ranking(results, "BM25" if first == "bm25" else f"the {first} first stage")


def _result(
    place: int, hit: Hit, index: int, score: float, logit: float | None = None, mark: Span | None = None
) -> ranked.Ranked:
    return ranked.Ranked(place, index, score, logit, SourcedDocument(hit.source, hit.text), mark=mark)
