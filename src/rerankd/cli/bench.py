"""`rerankd bench`: systems side by side on one machine, in one run; or, with --url, a running server."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rerankd.bench.peers import PEERS
from rerankd.bench.workloads import WORKLOADS, workload_of
from rerankd.cli import bench_http
from rerankd.cli.progress import LoadingBar
from rerankd.errors import SettingsError

SIZES = ("0.6B", "4B", "8B")

ENGINE_OPTIONS = ("workload", "system", "peer_python", "dtype", "device", "calls")
"""Those that mean nothing with --url."""


def add_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("what is measured").add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="hub id or folder of a Qwen3-Reranker")
    model.add_argument(
        "--random-weights", choices=SIZES, help="random weights in the exact shapes of that size, made once"
    )
    model.add_argument("--url", help="a running server of POST /v1/rerank: measure it under load")
    parser.add_argument("--seed", type=int, help="of prompts and random weights (default: 0; with --url a new one)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    group = parser.add_argument_group("a model in this process (not with --url)")
    group.add_argument(
        "--workload", nargs="+", type=_workload, default=["A"], metavar="WORKLOAD", help=_workload_help()
    )
    group.add_argument("--system", nargs="+", choices=("rerankd", *PEERS), default=["rerankd"], help="default: rerankd")
    group.add_argument(
        "--peer-python",
        action="append",
        type=_interpreter,
        default=[],
        metavar="SYSTEM=PYTHON",
        help="run this system with this interpreter, in whose environment it is installed; repeatable",
    )
    group.add_argument(
        "--dtype",
        nargs="+",
        choices=("float32", "bfloat16", "int8"),
        default=["bfloat16"],
        help="one or several (default: bfloat16)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    group.add_argument("--calls", type=int, default=3, help="timed calls after the warm-up (default: 3)")
    bench_http.add_options(parser)
    parser.set_defaults(default_of=parser.get_default)


def run(options: argparse.Namespace) -> int:
    for name in ENGINE_OPTIONS if options.url else bench_http.OPTIONS:
        if getattr(options, name) != options.default_of(name):
            verb = "does not go with" if options.url else "needs"
            raise SettingsError(f"--{name.replace('_', '-')} {verb} --url.")
    if options.url:
        return bench_http.run(options)
    with LoadingBar(show_after_s=0) as bar:
        bar("loading PyTorch", 0.0)
        from rerankd.cli import bench_engine
    return bench_engine.run(options)


def _interpreter(text: str) -> tuple[str, Path]:
    system, _, python = text.partition("=")
    if system not in PEERS:
        raise argparse.ArgumentTypeError(f"{system!r} is not one of {', '.join(PEERS)}")
    if not (found := shutil.which(python)):
        raise argparse.ArgumentTypeError(f"{python!r} is not an interpreter")
    return system, Path(found)


def _workload(text: str) -> str:
    try:
        return workload_of(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workload_help() -> str:
    sets = (f"{w.name}: {w.num_documents} documents of about {w.document_tokens} tokens" for w in WORKLOADS.values())
    return f"one call each. {'; '.join(sets)}; or 20x532: 20 of about 532 tokens (default: A)"
