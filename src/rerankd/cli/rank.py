"""`rerankd rank "query" [FILE|-|DIR …]`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rerankd.cli.documents import SourcedDocument, read_documents
from rerankd.cli.progress import LoadingBar
from rerankd.client.dialects import DIALECTS
from rerankd.client.ranking import RemoteScore
from rerankd.types import DEFAULT_INSTRUCT, Score

BAR_WIDTH = 16
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
    parser.add_argument("--url", help="ask this server in place of a local model")
    parser.add_argument(
        "--dialect",
        default="auto",
        choices=("auto", *DIALECTS),
        help="what --url speaks (default: as the address looks)",
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
    with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
        ranked, warnings, model = _rank(options, [document.text for document in documents])
    if options.json:
        print(json.dumps(_as_json(ranked, documents, warnings, model), ensure_ascii=False, indent=2))
    else:
        _print_table(ranked, documents, model)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _rank(options: argparse.Namespace, texts: list[str]) -> tuple[Sequence[Score | RemoteScore], Sequence[str], str]:
    """(best first, warnings, the model that scored)."""
    top_n = options.top_n or None
    if options.url:
        from rerankd.client.client import Client

        with Client(options.url, options.api_key, dialect=options.dialect, model=options.model) as client:
            remote = client.rerank(options.query, texts, top_n=top_n, instruct=options.instruct)
        return remote.ranked, remote.warnings, remote.model or "a model without a name"
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
        return ranking.ranked, ranking.warnings, reranker.info.name


def _as_json(
    ranked: Sequence[Score | RemoteScore], documents: Sequence[SourcedDocument], warnings: Sequence[str], model: str
) -> dict[str, object]:
    return {
        "model": model,
        "results": [
            {
                "index": score.index,
                "score": score.score,
                "logit": score.logit,
                "source": documents[score.index].source,
                "document": documents[score.index].text,
            }
            for score in ranked
        ],
        "warnings": list(warnings),
    }


def _print_table(ranked: Sequence[Score | RemoteScore], documents: Sequence[SourcedDocument], model: str) -> None:
    console = Console()
    table = Table(
        box=None, pad_edge=False, header_style="bold", caption=Text(f"scored by {model}"), caption_justify="left"
    )
    # Where the terminal is narrow, the document gives way: the only column without a least width.
    source_width = min(MAX_SOURCE_WIDTH, max((len(documents[score.index].source) for score in ranked), default=0))
    table.add_column("#", justify="right", style="dim", min_width=len(str(len(ranked))))
    table.add_column("score", justify="right", min_width=6)
    table.add_column("", min_width=BAR_WIDTH)
    table.add_column("source", style="cyan", min_width=source_width, max_width=MAX_SOURCE_WIDTH, overflow="ellipsis")
    table.add_column("document", overflow="ellipsis", no_wrap=True)
    for place, score in enumerate(ranked, 1):
        text = " ".join(documents[score.index].text.split())
        bar = Text(_bar(score.score), style="green" if score.score >= 0.5 else "yellow")
        table.add_row(
            str(place), f"{score.score:.4f}", bar, Text(documents[score.index].source), Text(text, overflow="ellipsis")
        )
    console.print(table)


def _bar(score: float) -> str:
    eighths = round(min(max(score, 0), 1) * BAR_WIDTH * 8)  # other servers' scores may be outside [0, 1]
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()
