"""`rerankd doctor`: can this machine serve this model, are its scores right, and how fast is it?"""

from __future__ import annotations

import argparse
from pathlib import Path

from rerankd.cli.options import add_settings, settings_from
from rerankd.cli.progress import LoadingBar
from rerankd.config import ModelSettings
from rerankd.errors import SettingsError

DTYPES = ("float32", "bfloat16", "int8")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--compare",
        type=_dtypes,
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
    if options.compare and "dtype" in options:
        raise SettingsError("--compare names the dtypes: leave --dtype out.")
    if options.data and not options.compare:
        raise SettingsError("--data is read by --compare: name the dtypes too, as in --compare float32,bfloat16.")
    with LoadingBar(show_after_s=0) as bar:
        bar("loading PyTorch", 0.0)
        from rerankd.cli import checkup, compare
        from rerankd.engine.open import Choice
    choice = Choice(settings.model, settings.device, settings.dtype, settings.deterministic, settings.offline)
    if options.compare:
        return compare.run_comparison(choice, options.compare, options.data, as_json=options.json)
    return checkup.run(choice, as_json=options.json)


def _dtypes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in DTYPES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(DTYPES)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("name two or more different dtypes, the reference first: float32,bfloat16")
    return names
