"""Settings as command-line options: one option a field, in the words of config.py."""

from __future__ import annotations

import argparse
import os
from typing import Any, TypeVar

from rerankd.config import GROUPS, Settings, read_settings
from rerankd.environment import PREFIX
from rerankd.setting import Setting, settings_of

Kind = TypeVar("Kind", bound=Settings)


def add_settings(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Adds an option for each field of a settings class; those that are not given stay absent."""
    note = f"each setting also as an environment variable, {PREFIX}CONFIG and so on, and in the --config file"
    parser.description = f"{parser.description or ''} {note}".strip()
    known = settings_of(kind)
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for name, setting in known.items():
            if setting.rule.group == title:
                _add(group, name, setting)


def _add(group: argparse._ArgumentGroup, name: str, setting: Setting) -> None:
    how: dict[str, Any] = {"metavar": setting.rule.metavar or "N"}
    if setting.type is bool:
        how = {"action": argparse.BooleanOptionalAction if setting.default else "store_true"}
    elif setting.is_list:
        how["action"] = "append"
    elif setting.choices:
        how = {"choices": setting.choices}
    default = f" (default: {setting.shown_default})".replace("%", "%%") if setting.shown_default else ""
    group.add_argument(setting.option, default=argparse.SUPPRESS, help=f"{setting.rule.help}{default}", **how)


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """The settings that a parsed command line has."""
    return {name: value for name, value in vars(options).items() if name in settings_of(kind)}


def settings_from(options: argparse.Namespace, kind: type[Kind]) -> Kind:
    """The settings of a parsed command line, the environment and the settings file.

    Raises:
        SettingsError: one of them is malformed.
    """
    return read_settings(kind, given(options, kind), os.environ)
