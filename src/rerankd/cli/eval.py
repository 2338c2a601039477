"""`rerankd eval RUN …` or `DIR --models …`: how good runs are, which is better, and how deep to rerank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.cli.console import output_console
from rerankd.cli.eval_models import ModelOptions, rerank_with_models
from rerankd.cli.options import FLAG, SEVERAL, command, converter
from rerankd.cli.table import show_table
from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.evaluation.depth import DEPTHS
from rerankd.evaluation.measures import DEFAULT_MEASURES, Measures, without_own
from rerankd.evaluation.study import Evaluated, Study, study
from rerankd.evaluation.verdict import verdict
from rerankd.runs.about import read_about
from rerankd.runs.judgements import Judgements, read_judgements
from rerankd.runs.run import Run, read_run
from rerankd.runs.texts import read_queries

app = command("eval")

FILE = Parameter(metavar="FILE")
MODELS = ModelOptions()


def _depths(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"{text!r} is no list of depths such as 10,20,50,100")
    return tuple(int(part) for part in parts)


DEPTHS_OPTION = Parameter(converter=converter(_depths), n_tokens=1, metavar="N,N…", show_default=False)


@app.default
def eval(
    *paths: Annotated[Path, Parameter(name="RUN")],
    qrels: Annotated[Path | None, FILE] = None,
    measures: Annotated[list[str], SEVERAL] = list(DEFAULT_MEASURES),  # noqa: B006 - cyclopts copies it
    depths: Annotated[tuple[int, ...], DEPTHS_OPTION] = DEPTHS,
    queries: Annotated[Path | None, FILE] = None,
    ignore_own: Annotated[bool, FLAG] = False,
    by_query: Annotated[Path | None, FILE] = None,
    html: Annotated[Path | None, FILE] = None,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    folder: ModelOptions = MODELS,
) -> int:
    """Measure runs against relevance judgements, and compare them with the first one.

    A run is a TREC or MS MARCO run, or JSONL or Parquet, compressed or not. A BEIR folder is reranked with --models
    first, and its judgements and queries are read.

    Args:
        paths: runs, or one folder; the first run is the baseline, such as the first stage that the others rerank
        qrels: the judgements of runs, in TREC's or BEIR's format, JSONL or Parquet
        measures: as ir_measures writes them; the first one decides
        depths: how many candidates to rerank in the depth study (default: 5 to 1,000)
        queries: the queries' texts, for the report
        ignore_own: leave out candidates whose id is their query's, as BEIR does (ArguAna, Quora)
        by_query: write every measure of every query and run to this file, as JSONL
        html: write a report to this file
        as_json: print JSON
    """
    chosen = Measures(measures)
    files = _files(paths, qrels, queries, folder)
    abouts = [read_about(path) for path in files.runs]
    runs = [
        replace(run, has_logits=run.has_logits or about is not None)  # a TREC run does not say what its scores are
        for run, about in zip(map(read_run, files.runs), abouts, strict=True)
    ]
    runs = [without_own(run) if ignore_own else run for run in runs]
    judged = read_judgements(files.qrels)
    texts = {qid: query.text for qid, query in read_queries(files.queries).items()} if files.queries else {}
    found = study(runs, judged, chosen, texts, depths, abouts)
    if by_query:
        _write(by_query, _by_query(runs, chosen, judged))
    if html:
        _write(html, _html(found))
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=2))
    else:
        _print(found, html)
    return 0


@dataclass(frozen=True, slots=True)
class _Files:
    """What is evaluated. queries: empty where their texts are unknown."""

    runs: Sequence[Path]
    qrels: Sequence[Path]
    queries: Sequence[Path]


def _files(paths: Sequence[Path], qrels: Path | None, queries: Path | None, options: ModelOptions) -> _Files:
    if not paths:
        raise InvalidRequest("Name at least one run, or a folder with --models.")
    if any(path.is_dir() for path in paths):
        if len(paths) > 1 or qrels or queries:
            raise InvalidRequest("A folder is evaluated alone, with its own judgements and queries.")
        runs, collection = rerank_with_models(paths[0], options)
        return _Files(runs, collection.qrels, collection.queries)
    if options != MODELS:
        raise InvalidRequest("--models and the options with it belong to a folder; runs are evaluated as they are.")
    if qrels is None:
        raise InvalidRequest("Pass the judgements of the runs with --qrels.")
    return _Files(paths, [qrels], [queries] if queries else [])


def _by_query(runs: Sequence[Run], measures: Measures, judged: Judgements) -> str:
    lines = []
    for run in runs:
        values = measures.evaluate(run.ranked, judged).by_query
        for qid in judged:
            lines.append(json.dumps({"run": run.name, "qid": qid, **{name: values[name][qid] for name in values}}))
    return "".join(f"{line}\n" for line in lines)


def _html(found: Study) -> str:
    try:
        from rerankd.evaluation.report import report
    except ImportError as error:
        raise MissingExtra("The report", error, "leave --html out", "eval") from None
    return report(found)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}.") from None


def _print(found: Study, html: Path | None) -> None:
    console = output_console()
    for run in found.runs[1:]:
        said = verdict(found, run)
        console.print(said.sentence, style={"better": "green", "worse": "red"}.get(said.kind, ""), highlight=False)
        console.print(said.detail, style="dim", highlight=False)
    if found.runs[1:]:
        console.print()
    rows = [[run.name, *(f"{run.means[name]:.4f}" for name in found.measures)] for run in found.runs]
    show_table(("run", *found.measures), rows, numbers=found.measures)
    for run in found.runs:
        for line in _coverage(run):
            console.print(line, style="dim", highlight=False)
    _print_depths(found)
    console.print(f"\n{found.queries:,} judged queries." + (f" Report: {html}" if html else ""), highlight=False)


def _coverage(run: Evaluated) -> list[str]:
    covered, lines = run.coverage, []
    if covered.missing:
        lines.append(f"{run.name}: {covered.missing:,} of {covered.judged:,} judged queries are missing and count as 0")
    if covered.unjudged:
        lines.append(f"{run.name}: {covered.unjudged:,} queries without judgements are left out")
    if covered.own:
        lines.append(f"{run.name}: {covered.own:,} candidates have their query's id (--ignore-own leaves them out)")
    return lines


def _print_depths(found: Study) -> None:
    studies = [(run.name, run.compared.depths) for run in found.runs if run.compared and run.compared.depths]
    if not studies or len(studies[0][1].points) < 3:
        return
    names = [name for name, _ in studies]
    print(f"\n{found.measures[0]} by the number of candidates reranked")
    rows = [
        [point.depth, *(f"{depths.points[place].mean:.4f}" for _, depths in studies)]
        for place, point in enumerate(studies[0][1].points)
    ]
    show_table(("depth", *names), rows, numbers=("depth", *names))
