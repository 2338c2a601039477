"""`rerankd eval RUN …` or `DIR --models …`: how good runs are, which is better, and how deep to rerank."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from rerankd.cli.eval_models import ModelOptions, rerank_with_models
from rerankd.cli.evaluated import show
from rerankd.cli.options import FLAG, OUTPUT, SEVERAL, command, converter
from rerankd.errors import InvalidRequest, MissingExtra
from rerankd.evaluation.depth import DEPTHS
from rerankd.evaluation.measures import DEFAULT_MEASURES, Measures, without_own
from rerankd.evaluation.study import Study, study
from rerankd.runs.about import About, read_about
from rerankd.runs.judgements import Judgements, read_judgements
from rerankd.runs.lines import STDIN
from rerankd.runs.run import Run, read_run
from rerankd.runs.texts import documents_of, read_queries

if TYPE_CHECKING:
    from rerankd.prices import PriceList  # needs pydantic, which measures do not

app = command("eval")

FILE = Parameter(metavar="FILE")
MODELS = ModelOptions()


def _depths(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"{text!r} is not a list of depths such as 10,20,50,100")
    return tuple(int(part) for part in parts)


DEPTHS_OPTION = Parameter(converter=converter(_depths), n_tokens=1, metavar="N,N…", show_default=False)


@app.default
def eval(
    *paths: Annotated[Path, Parameter(name="RUN")],
    qrels: Annotated[Path | None, FILE] = None,
    measures: Annotated[list[str], SEVERAL] = list(DEFAULT_MEASURES),  # noqa: B006 - cyclopts copies it
    depths: Annotated[tuple[int, ...], DEPTHS_OPTION] = DEPTHS,
    queries: Annotated[Path | None, FILE] = None,
    corpus: Annotated[Path | None, FILE] = None,
    prices: Annotated[Path | None, FILE] = None,
    ignore_own: Annotated[bool, FLAG] = False,
    by_query: Annotated[Path | None, OUTPUT, Parameter(show_default=False)] = None,
    html: Annotated[Path | None, OUTPUT, Parameter(show_default=False)] = None,
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
        corpus: the documents' texts, for the report's examples; read once
        prices: a settings file with [rates."MODEL"], for the cost of 1,000 queries
        ignore_own: leave out candidates whose id is their query's, as BEIR does (ArguAna, Quora)
        by_query: write every measure of every query and run to this file, as JSONL; '-' is stdout
        html: write a report to this file; '-' is stdout
        as_json: print JSON
    """
    chosen, rates = Measures(measures), _rates(prices) if prices else None
    _check_stdout(by_query == STDIN, html == STDIN, as_json)
    files = _files(paths, qrels, queries, corpus, folder)
    abouts = [read_about(path) for path in files.runs]
    runs = [_read(path, about, ignore_own) for path, about in zip(files.runs, abouts, strict=True)]
    judged = read_judgements(files.qrels)
    texts = {qid: query.text for qid, query in read_queries(files.queries).items()} if files.queries else {}
    found = study(runs, judged, chosen, texts, depths, abouts, partial(_price, rates))
    found = replace(found, currency=rates.currency if rates else "")
    if by_query:
        _write(by_query, _by_query(runs, chosen, judged))
    if html:
        _write(html, _html(found, files.corpus))
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False, indent=2))
    elif STDIN not in (by_query, html):
        show(found, html)
    return 0


def _check_stdout(*wanted: bool) -> None:
    if sum(wanted) > 1:
        raise InvalidRequest("Only one of --by-query -, --html - and --json can have stdout.")


def _rates(path: Path) -> PriceList:
    try:
        from rerankd.prices import read_price_list
    except ImportError as error:
        raise MissingExtra("A price list", error, "leave --prices out", "router") from None
    return read_price_list(path)


def _price(rates: PriceList | None, model: str) -> float | None:
    """Of a million tokens; a list may name the model without its owner."""
    names = (model, model.rpartition("/")[2])
    return float(rates.of(names).input_price) if rates is not None and rates.has(names) else None


@dataclass(frozen=True, slots=True)
class _Files:
    """What is evaluated. queries, corpus: empty where their texts are unknown."""

    runs: Sequence[Path]
    qrels: Sequence[Path]
    queries: Sequence[Path]
    corpus: Sequence[Path]


def _files(
    paths: Sequence[Path], qrels: Path | None, queries: Path | None, corpus: Path | None, options: ModelOptions
) -> _Files:
    if not paths:
        raise InvalidRequest("Name at least one run, or a folder with --models.")
    if any(path.is_dir() for path in paths):
        if len(paths) > 1 or qrels or queries or corpus:
            raise InvalidRequest("A folder is evaluated alone, with its own judgements, queries and documents.")
        runs, collection = rerank_with_models(paths[0], options)
        return _Files(runs, collection.qrels, collection.queries, collection.corpus)
    if options != MODELS:
        raise InvalidRequest("--models and the options with it belong to a folder; runs are evaluated as they are.")
    if qrels is None:
        raise InvalidRequest("Pass the judgements of the runs with --qrels.")
    return _Files(paths, [qrels], [queries] if queries else [], [corpus] if corpus else [])


def _read(path: Path, about: About | None, ignore_own: bool) -> Run:
    run = read_run(path)
    run = replace(run, has_logits=run.has_logits or about is not None)  # a TREC run does not say what its scores are
    return without_own(run) if ignore_own else run


def _by_query(runs: Sequence[Run], measures: Measures, judged: Judgements) -> str:
    lines = []
    for run in runs:
        values = measures.evaluate(run.ranked, judged).by_query
        for qid in judged:
            lines.append(json.dumps({"run": run.name, "qid": qid, **{name: values[name][qid] for name in values}}))
    return "".join(f"{line}\n" for line in lines)


def _html(found: Study, corpus: Sequence[Path]) -> str:
    try:
        from rerankd.evaluation.report import report
    except ImportError as error:
        raise MissingExtra("The report", error, "leave --html out", "eval") from None
    return report(found, dict(documents_of(corpus, found.shown_documents)))


def _write(path: Path, text: str) -> None:
    if path == STDIN:
        sys.stdout.write(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror or error}.") from None
