"""Settings as command-line options: one option a field, in the words of config.py."""

from __future__ import annotations

import argparse
import os
from typing import Any, TypeVar, get_args, get_origin

from rerankd.config import Settings, read_settings
from rerankd.environment import PREFIX

Kind = TypeVar("Kind", bound=Settings)

METAVARS = {
    "alias": "NAME",
    "config": "FILE",
    "cors_origin": "ORIGIN",
    "database": "URL",
    "redis": "URL",
    "root_path": "PATH",
    "ssl_ca_certs": "FILE",
    "ssl_certfile": "FILE",
    "ssl_keyfile": "FILE",
    "uds": "FILE",
}

GROUPS: dict[str, dict[str, None]] = {
    title: dict.fromkeys(names.split())
    for title, names in {
        "where to listen": "host port uds root_path",
        "the model": "model device dtype alias any_model",
        "who may call": "api_key no_auth accounts sign_up cors_origin",
        "limits": "max_queue requests_per_minute tokens_per_minute concurrency max_documents max_text_tokens "
        "max_total_tokens max_context max_body_mb",
    }.items()
}
"""What a beginner looks for, in this order; the other settings follow as they are in config.py."""


def add_settings(parser: argparse.ArgumentParser, kind: type[Settings]) -> None:
    """Adds an option for each field of a settings class; those that are not given stay absent."""
    note = f"each setting also as an environment variable, {PREFIX}CONFIG and so on, and in the --config file"
    groups = {
        title: parser.add_argument_group(title)
        for title, names in GROUPS.items()
        if names.keys() & kind.model_fields.keys()
    }
    others = parser.add_argument_group("more settings" if len(groups) > 1 else "settings", note)
    places = {name: group for title, group in groups.items() for name in GROUPS[title]}
    for name in sorted(kind.model_fields, key=_place):
        field, group = kind.model_fields[name], places.get(name, others)
        how: dict[str, Any] = {"metavar": METAVARS.get(name, name.upper())}
        if field.annotation is bool:
            how = {"action": argparse.BooleanOptionalAction if field.default else "store_true"}
        elif get_origin(field.annotation) is tuple:
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


def _place(name: str) -> int:
    """Sorted is stable: what is in no group keeps its order."""
    known = [member for names in GROUPS.values() for member in names]
    return known.index(name) if name in known else len(known)


def given(options: argparse.Namespace, kind: type[Settings]) -> dict[str, Any]:
    """The settings that a parsed command line has."""
    return {name: value for name, value in vars(options).items() if name in kind.model_fields}


def settings_from(options: argparse.Namespace, kind: type[Kind]) -> Kind:
    """The settings of a parsed command line, the environment and the settings file.

    Raises:
        SettingsError: one of them is malformed.
    """
    return read_settings(kind, given(options, kind), os.environ)
