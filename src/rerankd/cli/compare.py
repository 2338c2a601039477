"""`rerankd doctor --compare`: how dtypes change scores and rankings of the user's model and data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerankd.cli.console import output_console
from rerankd.cli.progress import LoadingBar
from rerankd.cli.queries import built_in_queries, read_queries
from rerankd.compare import Comparison, Query, compare, rank_all
from rerankd.engine.loading.devices import choose_device, describe_device
from rerankd.engine.loading.dtypes import DTYPES, choose_dtype
from rerankd.engine.loading.open import Choice
from rerankd.errors import InferenceError, SettingsError
from rerankd.selftest import SelfTest, run_self_test
from rerankd.startup import start_scorer
from rerankd.types import ModelInfo, Ranking

BUILT_IN_NOTE = "The built-in set is small: decide on your own data (--data FILE)."


@dataclass(frozen=True, slots=True)
class Run:
    """One dtype on all queries."""

    dtype: str
    info: ModelInfo
    check: SelfTest
    rankings: Sequence[Ranking]


@dataclass(frozen=True, slots=True)
class Report:
    """All runs, the reference first.

    Attributes:
        data: None for the built-in set.
        comparisons: of each other dtype with the reference.
    """

    data: Path | None
    queries: Sequence[Query]
    runs: Sequence[Run]
    comparisons: Mapping[str, Comparison]

    @property
    def info(self) -> ModelInfo:
        return self.runs[0].info

    @property
    def num_documents(self) -> int:
        return sum(len(query.documents) for query in self.queries)

    @property
    def num_judged(self) -> int:
        return sum(query.relevance is not None for query in self.queries)

    @property
    def warnings(self) -> list[str]:
        """Every warning, with its query's place."""
        warnings = (
            f"{query.source}: {warning}"
            for run in self.runs
            for query, ranking in zip(self.queries, run.rankings, strict=True)
            for warning in ranking.warnings
        )
        return list(dict.fromkeys(warnings))


def run_comparison(choice: Choice, names: Sequence[str], data: Path | None, *, as_json: bool) -> int:
    """Runs the queries in each dtype of a model, one after another, and prints the report.

    The status is 1 if a dtype fails the known-answer check.

    Raises:
        InvalidRequest: the data cannot be read.
        SettingsError: this machine or the model does not run these dtypes.
        InferenceError: a dtype gives a score that is not a number.
    """
    _refuse_substitutes(names, choose_device(choice.device))
    queries = built_in_queries() if data is None else read_queries(data)
    runs = [_run(replace(choice, dtype=name), queries) for name in names]
    comparisons = {run.dtype: compare(queries, runs[0].rankings, run.rankings) for run in runs[1:]}
    report = Report(data, queries, runs, comparisons)
    if as_json:
        print(json.dumps(_as_json(report), ensure_ascii=False, indent=2))
    else:
        _print(report)
    return 1 if any(run.check.status == "failed" for run in runs) else 0


def _refuse_substitutes(names: Sequence[str], device: torch.device) -> None:
    """Refuses dtypes that this device lacks; `serve` would substitute another one, with a warning."""
    for name in names:
        if choose_dtype(name, device) != DTYPES[name]:
            raise SettingsError(f"This machine's {device.type} does not support {name}: {describe_device(device)}.")


def _run(choice: Choice, queries: Sequence[Query]) -> Run:
    with LoadingBar() as bar:
        engine = start_scorer(choice, skip_self_test=True, progress=bar)
    try:
        info = engine.info
        if info.kind not in ("qwen3", "qwen2") or info.dtype != choice.dtype:  # else it would be compared with itself
            raise SettingsError(
                f"{info.name} runs in {info.dtype} whatever dtype is asked for: --compare needs a Qwen3-Reranker, "
                "as in --model Qwen/Qwen3-Reranker-0.6B."
            )
        check = run_self_test(engine)
        with LoadingBar() as bar:
            stage = f"scoring {len(queries)} queries in {choice.dtype}"
            rankings = rank_all(engine, queries, lambda done: bar(stage, done / len(queries)))
    except InferenceError as error:
        raise InferenceError(f"{choice.dtype}: {error}") from error
    finally:
        engine.close()
    return Run(choice.dtype, info, check, rankings)


def _verdict(dtype: str, comparison: Comparison) -> str:
    """One sentence for a person."""
    drift, first, ndcg = comparison.score, comparison.top.get(1), comparison.ndcg_at_10
    parts = [f"moves scores by {drift.mean:.4f} on average (largest {drift.largest:.4f})"]
    if first:
        parts.append(f"changes the first document of {first.queries} of {first.of} queries")
    if ndcg:
        parts.append(f"takes nDCG@10 from {ndcg.before:.4f} to {ndcg.after:.4f}")
    *most, last = parts
    return f"{dtype} {', '.join(most)}{' and ' if most else ''}{last}."


def _print(report: Report) -> None:
    console = output_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column()
    for run in report.runs:
        table.add_column(run.dtype if run.dtype in report.comparisons else f"{run.dtype} (reference)", justify="right")
    for name, cells in _rows(report):
        table.add_row(name, *cells)
    info = report.info
    _say(console, f"{info.name} on {info.device}: {describe_device(torch.device(info.device))}")
    _say(console, f"{_summary(report)}\n")
    console.print(table)
    console.print()
    for dtype, comparison in report.comparisons.items():
        _say(console, _verdict(dtype, comparison), "bold")
    for run in report.runs:
        if run.check.status == "failed":
            _say(console, f"{run.dtype} fails the known-answer check: {run.check.verdict}", "red")
    if report.data is None:
        _say(console, BUILT_IN_NOTE)
    if report.warnings:
        _say(console, f"Warnings: {len(report.warnings)}, the first: {report.warnings[0]}", "yellow")


def _say(console: Console, sentence: str, style: str = "") -> None:
    """One line, however long, for programs that read it."""
    console.print(Text(sentence, style), soft_wrap=True)


def _summary(report: Report) -> str:
    source = "built-in set" if report.data is None else report.data
    judged = f"{report.num_judged} queries are judged" if report.num_judged else "not judged, so there is no nDCG"
    return f"{source}: {len(report.queries)} queries with {report.num_documents} documents; {judged}"


def _rows(report: Report) -> Iterator[tuple[str, list[str | Text]]]:
    """Rows of the table: a name, and a cell for each dtype, the reference first."""
    comparisons = list(report.comparisons.values())
    for name, drifts in (
        ("score difference", [comparison.score for comparison in comparisons]),
        ("logit difference", [comparison.logit for comparison in comparisons]),
    ):
        yield f"{name}, mean", ["", *(f"{drift.mean:.4f}" for drift in drifts)]
        yield f"{name}, P95", ["", *(f"{drift.p95:.4f}" for drift in drifts)]
        yield f"{name}, largest", ["", *(f"{drift.largest:.4f}" for drift in drifts)]
    taus = [comparison.kendall_tau for comparison in comparisons]
    yield "order, mean Kendall tau", ["", *("–" if tau is None else f"{tau:.4f}" for tau in taus)]
    for k in comparisons[0].top:
        changed = [comparison.top[k] for comparison in comparisons]
        name = "first document changed" if k == 1 else f"first {k} documents changed"
        yield name, ["", *(f"{change.queries} of {change.of}" for change in changed)]
    if ndcgs := [comparison.ndcg_at_10 for comparison in comparisons if comparison.ndcg_at_10]:
        cells = [f"{ndcg.after:.4f} ({ndcg.after - ndcg.before:+.4f})" for ndcg in ndcgs]
        yield "nDCG@10", [f"{ndcgs[0].before:.4f}", *cells]
    yield "known-answer check", [_status(run.check) for run in report.runs]


def _status(check: SelfTest) -> Text:
    return Text(check.status, "red" if check.status == "failed" else "green")


def _as_json(report: Report) -> dict[str, object]:
    return {
        "model": report.info.name,
        "checkpoint": report.info.folder,
        "device": report.info.device,
        "data": {
            "source": "built-in" if report.data is None else str(report.data),
            "queries": len(report.queries),
            "documents": report.num_documents,
            "judged_queries": report.num_judged,
        },
        "reference": report.runs[0].dtype,
        "known_answer_check": {run.dtype: f"{run.check.status}: {run.check.verdict}" for run in report.runs},
        "comparisons": {dtype: _comparison_as_json(dtype, it) for dtype, it in report.comparisons.items()},
        "warnings": [*([BUILT_IN_NOTE] if report.data is None else []), *report.warnings],
    }


def _comparison_as_json(dtype: str, comparison: Comparison) -> dict[str, object]:
    ndcg = comparison.ndcg_at_10
    return {
        "verdict": _verdict(dtype, comparison),
        "score_difference": asdict(comparison.score),
        "logit_difference": asdict(comparison.logit),
        "kendall_tau": comparison.kendall_tau,
        "changed": {f"first_{k}": asdict(changed) for k, changed in comparison.top.items()},
        "ndcg_at_10": ndcg and {**asdict(ndcg), "change": ndcg.after - ndcg.before},
    }
