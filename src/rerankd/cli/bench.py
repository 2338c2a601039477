"""`rerankd bench`: systems side by side on one machine, in one run; or, with --url, a running server."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from cyclopts import Group, Parameter, validators

from rerankd.cli.bench_http import AGAINST_SERVER, ServerOptions, bench_server
from rerankd.cli.bench_options import MEASURE_HERE, EngineOptions
from rerankd.cli.options import FLAG, NUMBER, command
from rerankd.cli.progress import load_pytorch
from rerankd.errors import SettingsError

Size = Literal["0.6B", "4B", "8B"]

MEASURED = Group("What is measured", sort_key=-1)
ONE_MEASURED = Group("one of them", show=False, validator=validators.LimitedChoice(1, 1))

MODEL = Parameter(metavar="MODEL", group=(MEASURED, ONE_MEASURED))
SIZE = Parameter(group=(MEASURED, ONE_MEASURED))
URL = Parameter(metavar="URL", group=(MEASURED, ONE_MEASURED))

app = command("bench")


@app.default
def bench(
    *,
    model: Annotated[str | None, MODEL] = None,
    random_weights: Annotated[Size | None, SIZE] = None,
    url: Annotated[str | None, URL] = None,
    seed: Annotated[int | None, NUMBER] = None,
    as_json: Annotated[bool, FLAG, Parameter("--json")] = False,
    engine: EngineOptions = MEASURE_HERE,
    server: ServerOptions = AGAINST_SERVER,
) -> int:
    """Measure speed and memory.

    Args:
        model: hub id or folder of a Qwen3-Reranker
        random_weights: random weights in the exact shapes of that size, made once
        url: a running server of POST /v1/rerank: measure it under load
        seed: of prompts and random weights (default: 0; with --url a new one)
        as_json: print JSON
    """
    _refuse_changed(engine if url else server, "does not go with" if url else "needs")
    if url:
        return bench_server(url, server, seed, as_json=as_json)
    load_pytorch()
    from rerankd.cli.bench_engine import bench_engine

    return bench_engine(engine, model, random_weights, seed or 0, as_json=as_json)


def _refuse_changed(options: EngineOptions | ServerOptions, verb: str) -> None:
    """Refuses options that mean nothing here.

    Raises:
        SettingsError: one of them is not the default.
    """
    for one in fields(options):
        if getattr(options, one.name) != one.default:
            raise SettingsError(f"--{one.name.replace('_', '-')} {verb} --url.")
