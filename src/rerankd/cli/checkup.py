"""`rerankd doctor` without --compare: facts about machine and model, the known-answer check, and the speed."""

from __future__ import annotations

import json
import platform
import time
from contextlib import closing

import torch
from rich.table import Table
from rich.text import Text

from rerankd.cli.console import output_console
from rerankd.cli.progress import LoadingBar
from rerankd.engine.loading.devices import describe_device, instruction_sets
from rerankd.engine.loading.open import Choice
from rerankd.engine.scorer import EngineScorer
from rerankd.selftest import SelfTest, run_self_test
from rerankd.startup import start_scorer
from rerankd.types import RerankRequest
from rerankd.version import __version__

SPEED_DOCUMENTS = 20
SPEED_AT_LEAST_S = 4.0
SENTENCE = "The committee met on Tuesday to discuss the budget for the coming year and the repair of the old bridge. "

LABELS = {"instruction_sets": "instruction sets", "known_answer_check": "known-answer check"}
"""Labels of the table for names in the JSON."""


def run(choice: Choice, *, as_json: bool) -> int:
    """Prints the report; the status is 1 if the known-answer check fails."""
    with LoadingBar(show_after_s=0) as bar:
        bar("loading the model", 0.0)
        scorer = start_scorer(choice, skip_self_test=True, progress=bar)
    with closing(scorer):
        facts, outcome = _facts(scorer), run_self_test(scorer)
        facts["speed"] = _speed(scorer)
    facts["known_answer_check"] = f"{outcome.status}: {outcome.verdict}"
    if as_json:
        print(json.dumps({**facts, "logits": outcome.logits}, ensure_ascii=False, indent=2))
    else:
        _print(facts, outcome)
    return 1 if outcome.status == "failed" else 0


def _facts(scorer: EngineScorer) -> dict[str, str]:
    info = scorer.info
    facts = {
        "rerankd": f"{__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        "device": f"{info.device}: {describe_device(torch.device(info.device))}",
        "instruction_sets": ", ".join(instruction_sets()),
        "dtype": info.dtype,
        "model": f"{info.name} ({info.kind}, {info.num_parameters / 1e6:.0f} M parameters)",
        "checkpoint": info.folder,
        "prompt": f"{info.prompt_id}, up to {info.max_tokens} tokens",
    }
    if info.kernels:
        facts["kernels"] = info.kernels
    if info.notice:
        facts["warning"] = info.notice
    return facts


def _speed(scorer: EngineScorer) -> str:
    """The best of several rounds: the first ones allocate memory."""
    best, tokens, started = 0.0, 0, time.perf_counter()
    round_number = 0
    while round_number < 2 or time.perf_counter() - started < SPEED_AT_LEAST_S:
        round_number += 1
        documents = tuple(f"{round_number}-{number}. {SENTENCE * 4}" for number in range(SPEED_DOCUMENTS))
        prepared = scorer.prepare(RerankRequest(("When is the bridge repaired?",), documents))
        began = time.perf_counter()
        scorer.submit(prepared).result()
        best = max(best, SPEED_DOCUMENTS / (time.perf_counter() - began))
        tokens = prepared.usage.prompt_tokens // SPEED_DOCUMENTS
    return f"{best:.1f} documents/s ({SPEED_DOCUMENTS} documents a call, prompts of {tokens} tokens)"


def _print(facts: dict[str, str], outcome: SelfTest) -> None:
    console = output_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    style = {"failed": "red", "sane": "green", "published": "green"}[outcome.status]
    for name, value in facts.items():
        table.add_row(LABELS.get(name, name), Text(value, style if name == "known_answer_check" else ""))
    rows = []
    for document, logit in sorted(outcome.logits.items(), key=lambda item: -item[1]):
        rows.append(f"  {logit:8.3f}  {document}")
    console.print(table)
    console.print("\n".join(rows), style="dim", no_wrap=True, overflow="ellipsis")
