"""Options as the commands declare them: those of a settings class, and the kinds of values that several commands read.

An option of a setting is made from its declaration in config/; nothing about it is written here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypedDict, TypeVar

from cyclopts import App, Group, Parameter, Token

from rerankd.cli.examples import examples_of
from rerankd.config import GROUPS, Settings, read_settings
from rerankd.setting import Secret, Setting, settings_of

Kind = TypeVar("Kind", bound=Settings)
Command = TypeVar("Command", bound=Callable[..., Any])

Given = Mapping[str, Any]
"""The settings that a command line has, by name."""

OPTIONS = Group("Options", sort_key=0)

SETTINGS = Group("Settings", sort_key=10)

MANY = 10
"""From this number on, settings have headings of their own."""

NONE_GIVEN: Given = MappingProxyType({})

DEFAULTS = Parameter(negative=(), allow_repeating=True, json_list=False, json_dict=False)
"""No `--no-json`; the last of two values counts; `[old]notes` is a file name, not JSON."""

FLAG = Parameter(show_default=False)
SEVERAL = Parameter(consume_multiple=(1, None), show_default=lambda values: ", ".join(map(str, values)))


def command(name: str) -> App:
    """A command of `rerankd`, or an action of one (`keys create`), with its examples."""
    return App(
        name=name.rpartition(" ")[2],
        help_epilogue=examples_of(f"rerankd {name}"),
        group_parameters=OPTIONS,
        default_parameter=DEFAULTS,
    )


def takes(kind: type[Settings]) -> Callable[[Command], Command]:
    """Gives a command an option for each setting of a class; its parameter `given` holds those on the command line."""
    settings = settings_of(kind)
    rows = {name: Annotated[_type(one), _parameter(one, len(settings) >= MANY)] for name, one in settings.items()}
    make_type: Any = TypedDict
    options: Any = Annotated[make_type("options", rows, total=False), Parameter(name="*")]

    def mark(command: Command) -> Command:
        command.__annotations__["given"] = options
        return command

    return mark


def settings_from(kind: type[Kind], given: Given) -> Kind:
    """The settings of a command line, the environment and the settings file.

    Raises:
        SettingsError: one of them is malformed.
    """
    return read_settings(kind, given, os.environ)


def _group(setting: Setting) -> Group:
    """The setting's heading on a help page; settings come after the command's own options."""
    return Group(setting.rule.group, sort_key=10 + GROUPS.index(setting.rule.group))


def _type(setting: Setting) -> Any:
    return list[str] if setting.is_list else str if setting.type is Secret else setting.type


def _parameter(setting: Setting, grouped: bool) -> Parameter:
    is_flag = setting.type is bool
    return Parameter(
        help=setting.rule.help,
        group=_group(setting) if grouped else SETTINGS,
        metavar=None if is_flag or setting.choices else setting.rule.metavar or "N",
        negative=f"--no-{setting.option[2:]}" if is_flag and setting.default else (),
        show_default=setting.shown_default or False,
        converter=None if is_flag or setting.is_list or setting.choices else _converter(setting),
    )


def _converter(setting: Setting) -> Callable[[Any, Sequence[Token]], Any]:
    def convert(_: Any, tokens: Sequence[Token]) -> Any:
        text = tokens[0].value
        try:
            value = setting.read(text)
            return text if isinstance(value, Secret) else value
        except ValueError as error:
            raise ValueError(f"{'the value' if setting.is_secret else repr(text)} {error}") from None

    return convert


def converter(read: Callable[[str], Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """A cyclopts converter from a function that reads one text, or raises ValueError."""
    return lambda _, tokens: read(tokens[0].value)


def each(read: Callable[[str], Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """The same for an option that may come several times: it gives a tuple."""
    return lambda _, tokens: tuple(read(token.value) for token in tokens)


def read_day(text: str) -> datetime:
    """The first moment of a day, in UTC."""
    try:
        return datetime.combine(date.fromisoformat(text), time(tzinfo=UTC))
    except ValueError:
        raise ValueError(f"{text!r} is not a day such as 2030-01-01") from None


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return read


def read_positive(text: str) -> float:
    try:
        if (number := float(text)) > 0:
            return number
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a number above 0")


def read_output(text: str) -> Path:
    """A file, or `-` for stdout."""
    if text.startswith("-") and text != "-":
        raise ValueError(f"{text!r} is an option, and no file: write ./{text}")
    return Path(text)


COUNT = Parameter(converter=converter(whole(1)), metavar="N")
NUMBER = Parameter(converter=converter(whole(0)), metavar="N")
POSITIVE = Parameter(converter=converter(read_positive), metavar="S")
OUTPUT = Parameter(converter=converter(read_output), n_tokens=1, metavar="FILE", allow_leading_hyphen=True)
DAY = Parameter(converter=converter(read_day), metavar="DAY")
