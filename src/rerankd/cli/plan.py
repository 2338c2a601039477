"""`rerankd plan`: how many replicas a load needs."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rerankd.capacity.assumptions import Replica
from rerankd.capacity.load import Mix, mix_of_log
from rerankd.capacity.plan import Row, plan
from rerankd.capacity.simulation import System
from rerankd.cli.console import output_console
from rerankd.cli.options import (
    COUNT,
    FLAG,
    NONE_GIVEN,
    NUMBER,
    Given,
    command,
    converter,
    read_positive,
    settings_from,
    takes,
)
from rerankd.cli.progress import LoadingBar
from rerankd.cli.table import show_table
from rerankd.config import ScoringSettings

app = command("plan")

UNITS = {"ms": 1e-3, "s": 1.0, "": 1.0}


def read_seconds(text: str) -> float:
    """`200ms`, `0.2s` or `0.2`."""
    found = re.fullmatch(r"([\d.]+)\s*(ms|s|)", text)
    try:
        if found and (seconds := float(found[1]) * UNITS[found[2]]) > 0:
            return seconds
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a time such as 200ms or 1.5s")


RATE = Parameter(converter=converter(read_positive), metavar="R")
TIME = Parameter(converter=converter(read_seconds), metavar="TIME")
FILE = Parameter(metavar="FILE")


@app.default
@takes(ScoringSettings)
def plan_replicas(
    *,
    documents_per_second: Annotated[float, RATE],
    tokens: Annotated[int, COUNT] = 300,
    documents: Annotated[int, COUNT] = 20,
    p95: Annotated[float, TIME, Parameter(show_default=lambda seconds: f"{seconds:g}s")] = 1.0,
    rate: Annotated[float | None, RATE] = None,
    batch_tokens: Annotated[int | None, COUNT] = None,
    log: Annotated[Path | None, FILE] = None,
    seed: Annotated[int, NUMBER] = 0,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    given: Given = NONE_GIVEN,
) -> int:
    """Simulate how many replicas a load needs.

    Measures the model on this machine first, unless --rate says what a replica does. docs/capacity.md lists what is
    assumed.

    Args:
        documents_per_second: the load
        tokens: of a document, mean
        documents: of a call
        p95: 95 of 100 calls are answered in this time, such as 200ms
        rate: documents of that length that one replica ranks in a second
        batch_tokens: the most that a replica computes at a time (default: this machine's; up to 16384 on a GPU)
        log: take sizes and arrivals of calls from this log of 'rerankd serve --log-format json'
        seed: of the simulation
        as_json: print JSON
    """
    mix = Mix([(documents, tokens)])
    if log is not None:
        with log.open(encoding="utf-8", errors="replace") as lines:
            mix = mix_of_log(lines)
    length = round(mix.tokens)
    if rate is not None:
        replica = Replica.from_rate(rate, length, batch_tokens or 512)
    else:
        replica = _measured(settings_from(ScoringSettings, given), length, batch_tokens)
    rows = plan(System(1, replica), mix, documents_per_second, p95, seed)
    if as_json:
        found = {"replica": asdict(replica), "replicas": rows[-1].replicas, "rows": [asdict(one) for one in rows]}
        print(json.dumps(found, indent=2))
    else:
        _print(rows, replica, length, documents_per_second, p95)
    return 0


def _measured(settings: ScoringSettings, tokens: int, batch_tokens: int | None) -> Replica:
    from rerankd.capacity.measure import measured_replica
    from rerankd.startup import chosen, start_scorer

    choice = chosen(settings, settings.model, fallback=False)
    with LoadingBar() as bar:
        scorer = start_scorer(choice, score_cache_mb=0, skip_self_test=settings.skip_self_test, progress=bar)
        bar("measuring", 0.0)
        with closing(scorer):
            return measured_replica(scorer, tokens, batch_tokens or scorer.engine.max_batch_tokens)


def _print(rows: list[Row], replica: Replica, tokens: int, documents_per_s: float, p95_s: float) -> None:
    answer = rows[-1]
    console = output_console()
    alone = 1 / ((tokens + 9) * replica.token_s)
    console.print(f"One replica: {alone:,.4g} documents a second of {tokens} tokens.")
    columns = ("replicas", "busy", "p50 s", "p95 s", "p99 s")
    show_table(columns, map(_cells, rows[-4:]), numbers=columns)
    needed = f"{_number(answer.replicas, 'replica')} and {_number(answer.fronts, 'front')}"
    reached = f"a P95 of {answer.p95_s:.3g} s (asked: {p95_s:g} s)"
    console.print(f"{needed} answer {documents_per_s:g} documents a second with {reached}.", soft_wrap=True)
    for kind, busy in answer.busy.items():
        console.print(f"[dim]{kind:9} {busy:4.0%} busy, all the time at {answer.full_at[kind]:,.0f} documents a second")


def _cells(row: Row) -> tuple[str, ...]:
    times = (f"{seconds:.3f}" for seconds in (row.p50_s, row.p95_s, row.p99_s))
    return f"{row.replicas:,}", f"{row.busy['replicas']:.0%}", *times


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count > 1 else ''}"
