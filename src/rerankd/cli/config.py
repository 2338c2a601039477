"""`rerankd config`: what `rerankd serve` would be told by these options, this environment and this file."""

from __future__ import annotations

import argparse
import json
import os
import re
from typing import Any

from rerankd.cli.options import add_settings, given
from rerankd.cli.store import show_table
from rerankd.config import ServerSettings, read_settings_and_sources
from rerankd.setting import settings_of

PASSWORD_IN_URL = re.compile(r"(?<=:)[^/@]*(?=@)")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings(parser, ServerSettings)


def run(options: argparse.Namespace) -> int:
    settings, sources = read_settings_and_sources(ServerSettings, given(options, ServerSettings), os.environ)
    shown = {name: _shown(getattr(settings, name)) for name in settings_of(ServerSettings)}
    if options.json:
        rows = {name: {"value": value, "source": sources.get(name, "default")} for name, value in shown.items()}
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        columns = ("setting", "value", "set by")
        show_table(columns, ((name, _in_words(value), sources.get(name, "")) for name, value in shown.items()))
    settings.check_exposure()
    return 0


def _shown(value: Any) -> Any:
    """The value as JSON has it. A secret writes itself as stars; the password of an address becomes some here."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return list(value) if isinstance(value, tuple) else PASSWORD_IN_URL.sub("***", str(value))


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(value) if isinstance(value, list) else "–" if value is None else str(value)
