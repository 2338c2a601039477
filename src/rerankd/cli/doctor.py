"""`rerankd doctor`: can this machine serve this model, are its scores right, and how fast is it?"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerankd.cli.compare import read_dtypes, run_comparison
from rerankd.cli.options import add_settings, settings_from
from rerankd.cli.progress import LoadingBar
from rerankd.config import ModelSettings
from rerankd.engine.devices import describe_device, instruction_sets
from rerankd.engine.engine import Engine
from rerankd.engine.open import Choice
from rerankd.errors import SettingsError
from rerankd.rerank import prepare
from rerankd.selftest import SelfTest, run_self_test
from rerankd.startup import start_engine
from rerankd.types import Pair, RerankRequest
from rerankd.version import __version__

SPEED_DOCUMENTS = 20
SPEED_AT_LEAST_S = 4.0
SENTENCE = "The committee met on Tuesday to discuss the budget for the coming year and the repair of the old bridge. "


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--compare",
        type=read_dtypes,
        metavar="DTYPE,DTYPE",
        help="in place of the check-up: what the other dtypes do to the scores and rankings of the first one",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="what --compare scores, one JSON object a line: 'query', 'documents' and, optional, 'relevance' (a number "
        "for each document, for nDCG) and 'instruct'; a small built-in set if left out",
    )
    add_settings(parser, ModelSettings)


def run(options: argparse.Namespace) -> int:
    settings = settings_from(options, ModelSettings)
    choice = Choice(settings.model, settings.device, settings.dtype, settings.deterministic)
    if options.compare:
        if "dtype" in options:
            raise SettingsError("--compare names the dtypes: leave --dtype out.")
        return run_comparison(choice, options.compare, options.data, as_json=options.json)
    if options.data:
        raise SettingsError("--data is read by --compare: name the dtypes too, as in --compare float32,bfloat16.")
    with LoadingBar() as bar:
        engine = start_engine(choice, skip_self_test=True, progress=bar)
    try:
        facts, outcome = _facts(engine), run_self_test(engine)
        facts["speed"] = _speed(engine)
    finally:
        engine.close()
    facts["known-answer check"] = f"{outcome.status}: {outcome.verdict}"
    if options.json:
        print(json.dumps({**facts, "logits": outcome.logits}, ensure_ascii=False, indent=2))
    else:
        _print(facts, outcome)
    return 1 if outcome.status == "failed" else 0


def _facts(engine: Engine) -> dict[str, str]:
    info = engine.info
    facts = {
        "rerankd": f"{__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        "device": f"{info.device}: {describe_device(torch.device(info.device))}",
        "instruction sets": ", ".join(instruction_sets()),
        "dtype": info.dtype,
        "model": f"{info.name} ({info.kind}, {info.num_parameters / 1e6:.0f} M parameters)",
        "checkpoint": info.folder,
        "prompt": f"{info.prompt_id}, up to {info.max_tokens} tokens",
    }
    if info.notice:
        facts["warning"] = info.notice
    return facts


def _speed(engine: Engine) -> str:
    """The best of some rounds: in the first ones, kernels may still be compiled in the background."""
    best, tokens, started = 0.0, 0, time.perf_counter()
    round_number = 0
    while round_number < 2 or time.perf_counter() - started < SPEED_AT_LEAST_S:
        round_number += 1
        documents = [f"{round_number}-{number}. {SENTENCE * 4}" for number in range(SPEED_DOCUMENTS)]
        request = RerankRequest(tuple(Pair("When is the bridge repaired?", document) for document in documents))
        pairs = prepare(request, engine)
        began = time.perf_counter()
        engine.submit(pairs).result()
        best = max(best, SPEED_DOCUMENTS / (time.perf_counter() - began))
        tokens = sum(len(pair.token_ids) for pair in pairs) // len(pairs)
    return f"{best:.1f} documents/s ({SPEED_DOCUMENTS} documents a call, prompts of {tokens} tokens)"


def _print(facts: dict[str, str], outcome: SelfTest) -> None:
    console = Console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    style = {"failed": "red", "sane": "green", "published": "green"}[outcome.status]
    for name, value in facts.items():
        table.add_row(name, Text(value, style if name == "known-answer check" else ""))
    rows = []
    for document, logit in sorted(outcome.logits.items(), key=lambda item: -item[1]):
        rows.append(f"  {logit:8.3f}  {document}")
    console.print(table)
    console.print("\n".join(rows), style="dim", no_wrap=True, overflow="ellipsis")
