"""Settings: each is one field of a settings class, declared once with its type, default, bounds and help.

Knows no setting by name, no option and no variable.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

TRUE, FALSE = ("true", "1", "on", "yes", "y", "t"), ("false", "0", "off", "no", "n", "f")


class InvalidSettings(ValueError):
    """Values that a settings class refuses.

    Attributes:
        problems: (the setting's name, what is wrong with its value), one for each refused value.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems))
        self.problems = problems


class Secret:
    """A text that `repr`, `str` and the log never show."""

    def __init__(self, value: str) -> None:
        self._secret_value = value

    def get_secret_value(self) -> str:
        return self._secret_value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********" if self._secret_value else ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._secret_value == other._secret_value

    def __hash__(self) -> int:
        return hash(self._secret_value)


@dataclass(frozen=True, slots=True)
class Rule:
    """The metadata that a declaration adds to a field's type and default.

    Attributes:
        help: one clause that describes the setting.
        group: the heading under which help and documentation list it.
        metavar: stands for its value in help; None for a number or a choice.
        at_least: smallest number.
        at_most: largest number.
        clean: changes a text, or each text of a list, before it is checked.
        pattern: a regular expression that the whole text, or each text of a list, matches.
        expected: describes the pattern in a message.
    """

    help: str
    group: str
    metavar: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    clean: Callable[[str], str] = str
    pattern: str | None = None
    expected: str = ""


def setting(default: Any, help: str, group: str = "", *, secret: bool = False, **rule: Any) -> Any:
    """A field of a settings class; a callable `default` is called for each new object.

    Args:
        secret: the value does not appear in `repr`.
        rule: more fields of `Rule`.
    """
    metadata = {"rule": Rule(help, group, **rule)}
    if callable(default):
        return field(default_factory=default, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting of a class.

    Attributes:
        name: the field's name.
        type: the value's type, without `None`.
        is_optional: None is a value, too.
        default: the default, or a callable that makes it.
        rule: what the declaration says about it.
        is_secret: the value must not be shown.
    """

    name: str
    type: Any
    is_optional: bool
    default: Any
    rule: Rule
    is_secret: bool

    @property
    def option(self) -> str:
        """The command-line option: `--max-queue`."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that exist, where there are few; else empty."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def is_list(self) -> bool:
        return get_origin(self.type) is tuple

    @property
    def shown_default(self) -> str:
        """The default in help and documentation; empty where there is none to show."""
        if callable(self.default) or self.default in (None, (), "") or isinstance(self.default, bool):
            return ""
        return ", ".join(self.default) if self.is_list else str(self.default)

    def read(self, value: Any) -> Any:
        """A value of the setting's type, from what an option, a variable or a TOML file holds.

        Raises:
            ValueError: the value does not fit; the message completes "port …".
        """
        if value is None and self.is_optional:
            return None
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"must be one of {', '.join(self.choices)}")
            return value
        if self.is_list:
            return tuple(self._checked(part) for part in _read_list(value))
        if isinstance(value, self.type) and self.type not in (int, str):
            return value
        found = _READERS[self.type](self._checked(value) if isinstance(value, str) else value)
        if not self._is_in_range(found):
            raise ValueError(f"must be {self._range()}")
        return found

    def _checked(self, text: str) -> str:
        rule, cleaned = self.rule, self.rule.clean(text)
        if rule.pattern is not None and not re.fullmatch(rule.pattern, cleaned):
            raise ValueError(f"must be {rule.expected}")
        return cleaned

    def _is_in_range(self, value: Any) -> bool:
        low, high = self.rule.at_least, self.rule.at_most
        return (low is None or value >= low) and (high is None or value <= high)

    def _range(self) -> str:
        low, high = self.rule.at_least, self.rule.at_most
        return f"at least {low:g}" if high is None else f"from {low or 0:,} to {high:,}"


def settings_of(kind: type) -> Mapping[str, Setting]:
    """Every setting of a class by name, in the order of declaration."""
    hints = get_type_hints(kind)
    return {one.name: _setting(one, *_without_none(hints[one.name])) for one in dataclasses.fields(kind)}


def read_all(settings: object) -> None:
    """Converts and checks every field of a new, frozen settings object in place.

    Raises:
        InvalidSettings: some values do not fit.
    """
    problems = []
    for name, one in settings_of(type(settings)).items():
        try:
            object.__setattr__(settings, name, one.read(getattr(settings, name)))
        except ValueError as error:
            problems.append((name, str(error)))
    if problems:
        raise InvalidSettings(problems)


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        [only] = [one for one in get_args(hint) if one is not type(None)]
        return only, True
    return hint, False


def _setting(one: dataclasses.Field[Any], kind: Any, is_optional: bool) -> Setting:
    default = one.default if one.default_factory is MISSING else one.default_factory
    return Setting(one.name, kind, is_optional, default, one.metadata["rule"], not one.repr or kind is Secret)


def _read_list(value: Any) -> tuple[str, ...]:
    """A list of texts, or one text with commas."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be a list of texts")
    return tuple(parts)


def _read_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in (*TRUE, *FALSE):
        raise ValueError("must be true or false")
    return text in TRUE


def _read_int(value: Any) -> int:
    try:
        if isinstance(value, bool) or (not isinstance(value, str) and value != int(value)):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, ArithmeticError):
        raise ValueError("must be a whole number") from None


def _read_float(value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
            raise ValueError
        return float(value)
    except (ValueError, ArithmeticError):
        raise ValueError("must be a number") from None


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    return value


_READERS: Mapping[Any, Callable[[Any], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_text,
    Path: lambda value: Path(_read_text(value)),
    Secret: lambda value: Secret(_read_text(value)),
}
