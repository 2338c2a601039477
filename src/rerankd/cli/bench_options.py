"""The options of `rerankd bench` without --url."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from rerankd.bench.peer_process import PEERS
from rerankd.bench.workloads import WORKLOADS, workload_of
from rerankd.cli.options import COUNT, SEVERAL, each


def _workload(text: str) -> str:
    return workload_of(text).name


def _workload_help() -> str:
    sets = (f"{w.name}: {w.num_documents} documents of about {w.document_tokens} tokens" for w in WORKLOADS.values())
    return f"one call each. {'; '.join(sets)}; or 20x532: 20 of about 532 tokens; 20x8000/512: as passages of 512"


def _system(text: str) -> str:
    if text not in ("rerankd", *PEERS):
        raise ValueError(f"{text!r} is not one of rerankd, {', '.join(PEERS)}")
    return text


def _interpreter(text: str) -> tuple[str, Path]:
    system, _, python = text.partition("=")
    if system not in PEERS:
        raise ValueError(f"{system!r} is not one of {', '.join(PEERS)}")
    if not (found := shutil.which(python)):
        raise ValueError(f"{python!r} is not an interpreter")
    return system, Path(found)


WORKLOAD = Parameter(help=_workload_help(), converter=each(_workload), n_tokens=1, metavar="WORKLOAD")
SYSTEM = Parameter(help=f"rerankd, {', '.join(PEERS)}", converter=each(_system), n_tokens=1, metavar="SYSTEM")
PYTHONS = Parameter(converter=each(_interpreter), n_tokens=1, metavar="SYSTEM=PYTHON", show_default=False)


@Parameter(name="*", group=Group("A model in this process (not with --url)", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The measurements in this process.

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
