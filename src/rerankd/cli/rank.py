"""`rerankd rank QUERY [FILE|DIR|- …]`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rerankd.cli import ranked
from rerankd.cli.cuts import in_words
from rerankd.cli.documents import Reading, read_documents
from rerankd.cli.folders import Selection
from rerankd.cli.progress import LoadingBar
from rerankd.cli.records import FIELDS, FORMATS, SourcedDocument
from rerankd.client.dialects import DIALECTS, endpoint
from rerankd.client.errors import RemoteRefused
from rerankd.errors import SettingsError
from rerankd.ranking import explanation
from rerankd.types import DEFAULT_INSTRUCT, Score

DTYPES = ("auto", "float32", "bfloat16", "int8")
DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:\d+)?")

PART_DOCUMENTS = 200
"""Documents of one request to a server: so often there is progress to show."""

AT_ONCE_S = 0.0
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", help="what the documents are ranked for")
    sources = parser.add_argument(
        "sources",
        nargs="*",
        default=[],
        metavar="FILE|DIR|-",
        help="the documents: each line of a file or of stdin (-); each record of a JSONL, JSON, CSV or TSV file; "
        "each text file of a folder. Left out: stdin. A file may be compressed with gzip",
    )
    sources.complete = _FILES  # type: ignore[attr-defined]  # read by shtab
    _add_reading(parser.add_argument_group("reading documents"))
    _add_ranking(parser.add_argument_group("ranking and output"))
    _add_local(parser.add_argument_group("a local model"))
    _add_server(parser.add_argument_group("a server"))


_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"}


def _add_reading(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--format",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"of all sources: {', '.join(FORMATS)} (default: by the suffix, else lines; JSON is recognised)",
    )
    group.add_argument(
        "--field",
        metavar="NAME",
        help="field or column that holds the text, outer.inner for a nested one "
        f"(default: the first of {', '.join(FIELDS)})",
    )
    group.add_argument("--whole", action="store_true", help="take each file as one document, as --format whole does")
    group.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of folders only such files: '*.md', 'docs/**'",
    )
    group.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="of folders no such files")
    group.add_argument(
        "--no-ignore",
        action="store_true",
        help="of folders also what .gitignore names, and node_modules, dist, minified and lock files",
    )
    group.add_argument(
        "--max-filesize",
        type=_size,
        default=1_000_000,
        metavar="SIZE",
        help="of folders no larger files: 500K, 2M (default: 1M)",
    )


def _add_ranking(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--top-n", type=_count, default=10, metavar="N", help="how many to show, 0 for all (default: 10)"
    )
    group.add_argument("--instruct", help=f"sorting task (default: {DEFAULT_INSTRUCT}; with --url, the server's)")
    group.add_argument(
        "--output",
        choices=ranked.OUTPUTS,
        metavar="FORMAT",
        help=f"{', '.join(ranked.OUTPUTS)} (default: table on a terminal; in a pipe tsv, nothing cut off: rank, score, "
        "source, document)",
    )
    group.add_argument("--json", action="store_const", const="json", dest="output", help="the same as --output json")
    group.add_argument(
        "--explain", action="store_true", help="show logit, tokens and cuts of each result (local models only)"
    )
    group.add_argument(
        "--prompt", type=int, metavar="INDEX", help="print the exact prompt of one document, counted from 0, and end"
    )


def _add_local(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", help="hub id, folder, 'embedded' or 'auto' (default: auto); with --url the name to ask for"
    )
    group.add_argument(
        "--device",
        type=_device,
        default=os.environ.get("RERANKD_DEVICE") or "auto",
        help="auto, cpu, cuda, cuda:1 or mps (default: auto)",
    )
    group.add_argument(
        "--dtype",
        type=_dtype,
        default=os.environ.get("RERANKD_DTYPE") or "auto",
        help="auto, float32, bfloat16 or int8 (default: auto)",
    )
    group.add_argument("--skip-self-test", action="store_true", help="use the model even if it fails its check")


def _add_server(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--url", help="ask this server in place of a local model")
    group.add_argument("--api-key", default=os.environ.get("RERANKD_API_KEY"), metavar="KEY", help="key for --url")
    group.add_argument(
        "--header",
        action="append",
        type=_header,
        default=[],
        metavar="HEADER",
        help="'NAME: VALUE', sent with every request to --url; may be repeated",
    )
    group.add_argument(
        "--dialect",
        default="auto",
        choices=("auto", *DIALECTS),
        metavar="NAME",
        help=f"what --url speaks: {', '.join(DIALECTS)} (default: as the address looks)",
    )


def run(options: argparse.Namespace) -> int:
    if options.url and (options.explain or options.prompt is not None):
        raise SettingsError(
            '--explain and --prompt need a local model; a rerankd server explains with "explain": true.'
        )
    found = read_documents(options.sources or ["-"], _reading(options))
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    documents = found.documents
    if options.prompt is not None and not 0 <= options.prompt < len(documents):
        raise SettingsError(f"--prompt {options.prompt}: there are {len(documents)} documents, the first is 0.")
    with redirect_stdout(sys.stderr):  # what libraries print must not mix with the result
        outcome = _rank(options, [document.text for document in documents])
    warnings = in_words(outcome.warnings, [document.source for document in documents])
    if options.prompt is not None:
        print(outcome.prompt)
    else:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        ranked.write(_ranking(outcome, documents, warnings), options.output or ("table" if is_terminal else "tsv"))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _reading(options: argparse.Namespace) -> Reading:
    selection = Selection(options.include, options.exclude, options.max_filesize, not options.no_ignore)
    return Reading("whole" if options.whole else options.format, options.field, selection)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """ranked: best first. model: what scored. explanations: by index, if asked for; prompt: of one document."""

    ranked: Sequence[Score]
    warnings: Sequence[str]
    model: str
    explanations: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    prompt: str | None = None


def _rank(options: argparse.Namespace, texts: list[str]) -> _Outcome:
    return _ask(options, texts) if options.url else _score(options, texts)


def _ask(options: argparse.Namespace, texts: list[str]) -> _Outcome:
    from rerankd.client.client import Client

    name, _ = endpoint(options.url, options.dialect)
    part = min(PART_DOCUMENTS, DIALECTS[name].max_documents or PART_DOCUMENTS)
    headers: dict[str, Any] = {"headers": dict(options.header)} if options.header else {}
    stage = f"asking {options.url} about {len(texts):,} documents"
    with (
        LoadingBar(AT_ONCE_S) as bar,
        Client(
            options.url, options.api_key, dialect=options.dialect, model=options.model, max_documents=part, **headers
        ) as client,
    ):
        bar(stage, 0.0)
        try:
            remote = client.rank(
                options.query,
                texts,
                top_n=options.top_n or None,
                instruct=options.instruct,
                progress=lambda done: bar(stage, done / len(texts)),
            )
        except RemoteRefused as error:
            if options.model is None and "model" in str(error).lower():
                raise SettingsError(f"{error} (Pass --model NAME.)") from error
            raise
    return _Outcome(remote.ranked, remote.warnings, remote.model or "a model without a name")


def _score(options: argparse.Namespace, texts: list[str]) -> _Outcome:
    with LoadingBar(AT_ONCE_S) as bar:
        bar("loading PyTorch", 0.0)
        import_module("rerankd.startup")  # so that what is missing is told in the words of the command line
        from rerankd.local import Reranker

        reranker = Reranker(
            options.model or os.environ.get("RERANKD_MODEL") or "auto",
            device=options.device,
            dtype=options.dtype,
            skip_self_test=options.skip_self_test,
            progress=bar,
        )
    with reranker, LoadingBar() as bar:
        ranking = reranker.rank(
            options.query,
            texts,
            top_n=options.top_n or None,
            instruct=options.instruct or DEFAULT_INSTRUCT,
            progress=lambda done: bar(f"ranking {len(texts):,} documents", done / len(texts)),
        )
        explained = ranking.ranked if options.explain else ()
        return _Outcome(
            ranking.ranked,
            ranking.warnings,
            reranker.info.name,
            {score.index: explanation(score, reranker.info) for score in explained},
            None if options.prompt is None else reranker.prompt_of(ranking.scores[options.prompt]),
        )


def _ranking(outcome: _Outcome, documents: Sequence[SourcedDocument], warnings: Sequence[str]) -> ranked.Ranking:
    results = [
        ranked.Ranked(
            place,
            score.index,
            score.score,
            score.logit,
            documents[score.index],
            outcome.explanations.get(score.index),
        )
        for place, score in enumerate(outcome.ranked, 1)
    ]
    return ranked.Ranking(results, outcome.model, warnings)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _size(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500K or 2M")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(DTYPES)}")
    return text


def _device(text: str) -> str:
    if not DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:1, mps")
    return text


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()
