"""Settings as command-line options: one option a field, in the words of config.py."""

from __future__ import annotations

import argparse
import os
from typing import Any, TypeVar, get_args

from rerankd.config import Settings, read_settings
from rerankd.environment import PREFIX

Kind = TypeVar("Kind", bound=Settings)

METAVARS = {"alias": "NAME", "config": "FILE", "database": "URL", "redis": "URL"}


def add_settings(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Adds an option for each field of a settings class; those that are not given stay absent."""
    group = parser.add_argument_group(
        "settings", f"each also as an environment variable, {PREFIX}CONFIG and so on, and in the --config file"
    )
    for name, field in kind.model_fields.items():
        how: dict[str, Any] = {"metavar": METAVARS.get(name, name.upper())}
        if field.annotation is bool:
            how = {"action": argparse.BooleanOptionalAction if field.default else "store_true"}
        elif name == "alias":
            how["action"] = "append"
        elif choices := [choice for choice in get_args(field.annotation) if isinstance(choice, str)]:
            how = {"choices": choices}
        value = field.get_default(call_default_factory=True)
        default = "" if value in (None, (), "", True, False) else f" (default: {value})".replace("%", "%%")
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            help=f"{field.description}{default}",
            **how,
        )


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """The settings that a parsed command line has."""
    return {name: value for name, value in vars(options).items() if name in kind.model_fields}


def settings_from(options: argparse.Namespace, kind: type[Kind]) -> Kind:
    """The settings of a parsed command line, the environment and the settings file.

    Raises:
        SettingsError: one of them is malformed.
    """
    return read_settings(kind, given(options, kind), os.environ)
