"""`rerankd rank "query" [FILE|-|DIR …]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerankd.cli.documents import SourcedDocument, read_documents
from rerankd.cli.progress import LoadingBar
from rerankd.client.dialects import DIALECTS
from rerankd.client.ranking import RemoteScore
from rerankd.errors import SettingsError
from rerankd.rerank import explanation
from rerankd.types import DEFAULT_INSTRUCT, Score

BAR_WIDTH = 16

EXPLAINED = ("logit", "prompt_tokens", "query_tokens", "document_tokens", "cuts")
MAX_SOURCE_WIDTH = 40
EIGHTHS = " ▏▎▍▌▋▊▉"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query")
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="FILE|-|DIR",
        help="documents: the lines of a file or of stdin (-), the lines of a .jsonl file (strings, or objects with "
        "'text'), or the text files of a folder; stdin if left out",
    )
    parser.add_argument("--whole", action="store_true", help="take each file as one document")
    parser.add_argument("--top-n", type=int, default=10, help="how many to show, 0 for all (default: 10)")
    parser.add_argument("--instruct", help=f"sorting task (default: {DEFAULT_INSTRUCT}; with --url, the server's)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--explain", action="store_true", help="show logit, tokens and cuts of each result (a local model's)"
    )
    parser.add_argument(
        "--prompt", type=int, metavar="INDEX", help="print the exact prompt of one document, counted from 0, and end"
    )
    parser.add_argument("--url", help="ask this server in place of a local model")
    parser.add_argument(
        "--dialect",
        default="auto",
        choices=("auto", *DIALECTS),
        metavar="NAME",
        help=f"what --url speaks: {', '.join(DIALECTS)} (default: as the address looks)",
    )
    parser.add_argument("--api-key", default=os.environ.get("RERANKD_API_KEY"), help="key for --url")
    parser.add_argument(
        "--model", help="local model, see rerankd serve --help (default: auto), or the name to ask --url for"
    )
    for name, help_ in (("device", "device"), ("dtype", "auto, float32, bfloat16 or int8")):
        default = os.environ.get(f"RERANKD_{name.upper()}", "auto")
        parser.add_argument(f"--{name}", default=default, help=f"{help_}, see rerankd serve --help (default: auto)")
    parser.add_argument("--skip-self-test", action="store_true", help="use the model even if it fails its check")


def run(options: argparse.Namespace) -> int:
    documents = read_documents(options.sources or ["-"], whole=options.whole)
    if options.url and (options.explain or options.prompt is not None):
        raise SettingsError(
            '--explain and --prompt need a local model; a rerankd server explains with "explain": true.'
        )
    if options.prompt is not None and not 0 <= options.prompt < len(documents):
        raise SettingsError(f"--prompt {options.prompt}: there are {len(documents)} documents, the first is 0.")
    with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
        outcome = _rank(options, [document.text for document in documents])
    if options.prompt is not None:
        print(outcome.prompt)
    elif options.json:
        print(json.dumps(_as_json(outcome, documents), ensure_ascii=False, indent=2))
    else:
        _print_table(outcome, documents)
    for warning in outcome.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """ranked: best first. model: what scored. explanations: by index, if asked for; prompt: of one document."""

    ranked: Sequence[Score | RemoteScore]
    warnings: Sequence[str]
    model: str
    explanations: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    prompt: str | None = None


def _rank(options: argparse.Namespace, texts: list[str]) -> _Outcome:
    top_n = options.top_n or None
    if options.url:
        from rerankd.client.client import Client

        with Client(options.url, options.api_key, dialect=options.dialect, model=options.model) as client:
            remote = client.rerank(options.query, texts, top_n=top_n, instruct=options.instruct)
        return _Outcome(remote.ranked, remote.warnings, remote.model or "a model without a name")
    from rerankd.reranker import Reranker

    with LoadingBar() as bar:
        reranker = Reranker(
            options.model or os.environ.get("RERANKD_MODEL", "auto"),
            device=options.device,
            dtype=options.dtype,
            skip_self_test=options.skip_self_test,
            progress=bar,
        )
    with reranker, LoadingBar() as bar:
        ranking = reranker.rank(
            options.query,
            texts,
            top_n=top_n,
            instruct=options.instruct or DEFAULT_INSTRUCT,
            progress=lambda done: bar(f"ranking {len(texts)} documents", done / len(texts)),
        )
        explained = ranking.ranked if options.explain else ()
        return _Outcome(
            ranking.ranked,
            ranking.warnings,
            reranker.info.name,
            {score.index: explanation(score, reranker.info) for score in explained},
            None if options.prompt is None else reranker.prompt_of(ranking.scores[options.prompt]),
        )


def _as_json(outcome: _Outcome, documents: Sequence[SourcedDocument]) -> dict[str, object]:
    explained = {index: {"explain": explanation} for index, explanation in outcome.explanations.items()}
    return {
        "model": outcome.model,
        "results": [
            {
                "index": score.index,
                "score": score.score,
                "logit": score.logit,
                "source": documents[score.index].source,
                "document": documents[score.index].text,
                **explained.get(score.index, {}),
            }
            for score in outcome.ranked
        ],
        "warnings": list(outcome.warnings),
    }


def _print_table(outcome: _Outcome, documents: Sequence[SourcedDocument]) -> None:
    ranked = outcome.ranked
    caption = Text(f"scored by {outcome.model}{_prompt_and_dtype(outcome.explanations)}")
    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold", caption=caption, caption_justify="left")
    # Where the terminal is narrow, the document gives way: the only column without a least width.
    source_width = min(MAX_SOURCE_WIDTH, max((len(documents[score.index].source) for score in ranked), default=0))
    table.add_column("#", justify="right", style="dim", min_width=len(str(len(ranked))))
    table.add_column("score", justify="right", min_width=6)
    table.add_column("", min_width=BAR_WIDTH)
    for name in EXPLAINED if outcome.explanations else ():
        table.add_column(name.replace("_", " "), justify="right")
    table.add_column("source", style="cyan", min_width=source_width, max_width=MAX_SOURCE_WIDTH, overflow="ellipsis")
    table.add_column("document", overflow="ellipsis", no_wrap=True)
    for place, score in enumerate(ranked, 1):
        text = " ".join(documents[score.index].text.split())
        bar = Text(_bar(score.score), style="green" if score.score >= 0.5 else "yellow")
        explained = _explained(outcome.explanations[score.index]) if outcome.explanations else ()
        source = Text(documents[score.index].source)
        table.add_row(str(place), f"{score.score:.4f}", bar, *explained, source, Text(text, overflow="ellipsis"))
    console.print(table)


def _explained(explanation: Mapping[str, Any]) -> tuple[str, ...]:
    cuts = ", ".join(f"{cut['part']} {cut['from']} → {cut['to']}" for cut in explanation["cuts"])
    tokens = (str(explanation[name]) for name in EXPLAINED if name.endswith("tokens"))
    return (f"{explanation['logit']:.3f}", *tokens, cuts or "–")


def _prompt_and_dtype(explanations: Mapping[int, Mapping[str, Any]]) -> str:
    first = next(iter(explanations.values()), None)
    return f", prompt {first['prompt_id']}, {first['dtype']}" if first else ""


def _bar(score: float) -> str:
    eighths = round(min(max(score, 0), 1) * BAR_WIDTH * 8)  # other servers' scores may be outside [0, 1]
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()
