"""Prints what `rerankd eval` found: the verdicts, the measures, and the studies of depth and of passages."""

from __future__ import annotations

from pathlib import Path

from rerankd.cli.console import output_console
from rerankd.cli.table import show_table
from rerankd.evaluation.significance import Paired
from rerankd.evaluation.study import Evaluated, Study
from rerankd.evaluation.verdict import p_text, passages_said, signed, verdict


def show(found: Study, html: Path | None) -> None:
    """Prints everything on stdout. html: where the report is."""
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
    _print_passages(found)
    _print_costs(found)
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


def _print_passages(found: Study) -> None:
    for run in found.runs:
        if run.aggregates is None:
            continue
        print(f"\n{found.measures[0]} of {run.name} by what counts of a document's passages")
        rows = [
            [one.name, f"{one.mean:.4f}", *(("", "") if one.paired is None else _difference(one.paired))]
            for one in run.aggregates.aggregates
        ]
        show_table(("passages", found.measures[0], "difference", "p"), rows, numbers=(found.measures[0], "p"))
        said = passages_said(run.aggregates)
        output_console().print(said, style="dim", highlight=False)


def _difference(paired: Paired) -> tuple[str, str]:
    return f"{signed(paired.difference)} ({signed(paired.low)} to {signed(paired.high)})", p_text(paired.p_holm)


def _print_costs(found: Study) -> None:
    for run in found.runs:
        if run.made is not None and found.currency:
            cost = "no price" if run.made.cost is None else f"{run.made.cost:,.4f} {found.currency} for 1,000 queries"
            print(f"{run.name}: {cost}, {run.made.seconds:,.3f} seconds a query ({run.made.model})")
