"""`rerankd bench`: systems side by side on one machine, in one run; or, with --url, a running server."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token, validators

from rerankd.bench.peer_process import PEERS
from rerankd.bench.workloads import WORKLOADS, workload_of
from rerankd.cli.bench_http import AGAINST_SERVER, ServerOptions, bench_server
from rerankd.cli.options import COUNT, FLAG, NUMBER, SEVERAL, command
from rerankd.cli.progress import LoadingBar
from rerankd.errors import SettingsError

Size = Literal["0.6B", "4B", "8B"]

MEASURED = Group("What is measured", sort_key=-1)
ONE_MEASURED = Group("one of them", show=False, validator=validators.LimitedChoice(1, 1))

app = command("bench")


def _workloads(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    return tuple(workload_of(token.value).name for token in tokens)


def _workload_help() -> str:
    sets = (f"{w.name}: {w.num_documents} documents of about {w.document_tokens} tokens" for w in WORKLOADS.values())
    return f"one call each. {'; '.join(sets)}; or 20x532: 20 of about 532 tokens; 20x8000/512: as passages of 512"


def _systems(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    for token in tokens:
        if token.value not in ("rerankd", *PEERS):
            raise ValueError(f"{token.value!r} is not one of rerankd, {', '.join(PEERS)}")
    return tuple(token.value for token in tokens)


def _interpreters(kind: Any, tokens: Sequence[Token]) -> tuple[tuple[str, Path], ...]:
    return tuple(_interpreter(token.value) for token in tokens)


def _interpreter(text: str) -> tuple[str, Path]:
    system, _, python = text.partition("=")
    if system not in PEERS:
        raise ValueError(f"{system!r} is not one of {', '.join(PEERS)}")
    if not (found := shutil.which(python)):
        raise ValueError(f"{python!r} is not an interpreter")
    return system, Path(found)


WORKLOAD = Parameter(help=_workload_help(), converter=_workloads, n_tokens=1, metavar="WORKLOAD")
SYSTEM = Parameter(help=f"rerankd, {', '.join(PEERS)}", converter=_systems, n_tokens=1, metavar="SYSTEM")
PYTHONS = Parameter(converter=_interpreters, n_tokens=1, metavar="SYSTEM=PYTHON", show_default=False)
MODEL = Parameter(metavar="MODEL", group=(MEASURED, ONE_MEASURED))
SIZE = Parameter(group=(MEASURED, ONE_MEASURED))
URL = Parameter(metavar="URL", group=(MEASURED, ONE_MEASURED))


@Parameter(name="*", group=Group("A model in this process (not with --url)", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What is measured in this process.

    Attributes:
        peer_python: run this system with this interpreter, in whose environment it is installed; repeatable
        dtype: one or several
        device: auto, cpu, cuda, cuda:1 or mps
        calls: timed calls after the warm-up
    """

    workload: Annotated[tuple[str, ...], SEVERAL, WORKLOAD] = ("A",)
    system: Annotated[tuple[str, ...], SEVERAL, SYSTEM] = ("rerankd",)
    peer_python: Annotated[tuple[tuple[str, Path], ...], PYTHONS] = ()
    dtype: Annotated[tuple[Literal["float32", "bfloat16", "int8"], ...], SEVERAL] = ("bfloat16",)
    device: Annotated[str, Parameter(metavar="DEVICE")] = "auto"
    calls: Annotated[int, COUNT] = 3


MEASURE_HERE = EngineOptions()


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
    with LoadingBar(show_after_s=0) as bar:
        bar("loading PyTorch", 0.0)
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
