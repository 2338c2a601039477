"""`rerankd config`: the settings of `rerankd serve` with these options, this environment and this file."""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any

from cyclopts import Parameter

from rerankd.cli.options import FLAG, NONE_GIVEN, Given, command, takes
from rerankd.cli.table import show_table
from rerankd.config import GROUPS, ServerSettings, read_settings_and_sources
from rerankd.setting import settings_of

PASSWORD_IN_URL = re.compile(r"(?<=:)[^/@]*(?=@)")

app = command("config")


@app.default
@takes(ServerSettings)
def config(*, as_json: Annotated[bool, FLAG, Parameter("--json")] = False, given: Given = NONE_GIVEN) -> int:
    """Show the settings.

    Args:
        as_json: print JSON
    """
    settings, sources = read_settings_and_sources(ServerSettings, given, os.environ)
    known = settings_of(ServerSettings)
    in_order = sorted(known, key=lambda name: GROUPS.index(known[name].rule.group))  # as --help has them
    shown = {name: _shown(getattr(settings, name)) for name in in_order}
    if as_json:
        rows = {name: {"value": value, "source": sources.get(name, "default")} for name, value in shown.items()}
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        columns = ("setting", "value", "set by")
        show_table(columns, ((name, _in_words(value), sources.get(name, "")) for name, value in shown.items()))
    settings.check_exposure()
    return 0


def _shown(value: Any) -> Any:
    """The value in JSON. A secret prints as asterisks; so does the password in a URL."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return list(value) if isinstance(value, tuple) else PASSWORD_IN_URL.sub("***", str(value))


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return "–" if value is None or not text else text
