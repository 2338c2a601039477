"""Shared by the commands about accounts: the database, accounts by e-mail address, limits, and output formats."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, TypedDict, TypeVar

from cyclopts import App, Group, Parameter, validators

from rerankd.accounts.accounts import Account
from rerankd.accounts.schema import NO_LIMITS
from rerankd.accounts.store import Store, open_store
from rerankd.accounts.usage import csv_cell
from rerankd.cli.options import FLAG, OPTIONS, Given, command, converter, settings_from, takes
from rerankd.config import DatabaseSettings
from rerankd.errors import InvalidRequest
from rerankd.money import decimal
from rerankd.prices import PriceFile
from rerankd.types import CallLimits

Email = Annotated[str, Parameter(help="the account's e-mail address")]

Action = TypeVar("Action", bound=Callable[..., int])

ONE_FORMAT = Group("one format", show=False, validator=validators.MutuallyExclusive())


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Formats:
    """Options of a list that a program may read."""

    as_csv: Annotated[bool, FLAG, Parameter("--csv", help="print CSV", group=(OPTIONS, ONE_FORMAT))] = False
    as_json: Annotated[bool, FLAG, Parameter("--json", help="print one JSON array", group=(OPTIONS, ONE_FORMAT))] = (
        False
    )


AS_TABLE = Formats()


def _limit(text: str) -> int | None:
    if text != "none" and not text.isdecimal():
        raise ValueError(f"{text!r} is neither a whole number nor 'none'")
    return None if text == "none" else int(text)


LIMIT = Parameter(converter=converter(_limit), metavar="N", group="Limits")
NONE = "'none': the limit of the model or the server"


class LimitOptions(TypedDict, total=False):
    """The limits that a command line has."""

    requests_per_minute: Annotated[int | None, LIMIT, Parameter(help=f"calls per minute; {NONE}")]
    tokens_per_minute: Annotated[int | None, LIMIT, Parameter(help=f"billed tokens per minute; {NONE}")]
    concurrency: Annotated[int | None, LIMIT, Parameter(help=f"calls running at a time; {NONE}")]


Limits = Annotated[LimitOptions, Parameter(name="*")]
NO_LIMIT_OPTIONS = LimitOptions()


def action(app: App, name: str) -> Callable[[Action], Action]:
    """Makes a function an action of a command that reads the accounts' database."""

    def register(function: Action) -> Action:
        one = command(f"{app.name[0]} {name}")
        one.default(takes(DatabaseSettings)(function))
        app.command(one)
        return function

    return register


def limits_from(given: LimitOptions, before: CallLimits = NO_LIMITS) -> CallLimits:
    """The limits of a command line; those that it does not have stay as they were."""
    return replace(before, **given)


@contextmanager
def opened(given: Given) -> Iterator[Store]:
    """The accounts' database of a command line.

    Raises:
        SettingsError: a setting is malformed, or the database cannot be used.
    """
    settings = settings_from(DatabaseSettings, given)
    store = open_store(settings.require_database(), make_folder=settings.has_default_database)
    try:
        yield store
    finally:
        store.database.close()


def currency(given: Given) -> str:
    """The currency of the price list."""
    return PriceFile(settings_from(DatabaseSettings, given).config).current().currency


def account_of(store: Store, email: str) -> Account:
    """The account of an address.

    Raises:
        InvalidRequest: there is none.
    """
    account = store.accounts.by_email(email)
    if account is None:
        raise InvalidRequest(f"There is no account {email}.")
    return account


def print_records(formats: Formats, records: Sequence[Mapping[str, object]]) -> bool:
    """Prints CSV or JSON if one was asked for, and returns whether it did: times in ISO 8601, money in millionths."""
    plain = [{name: _plain(value) for name, value in record.items()} for record in records]
    if formats.as_json:
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    elif formats.as_csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(records[0] if records else ())
        lines.writerows(
            [csv_cell(value) if isinstance(value, str) else value for value in one.values()] for one in plain
        )
    return formats.as_json or formats.as_csv


def show_limits(limits: CallLimits) -> str:
    """The limits that are set, in few words."""
    words = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at a time"}
    given = ((getattr(limits, name), unit) for name, unit in words.items())
    return ", ".join(f"{value} {unit}" for value, unit in given if value is not None)


def show_money(micro: int, unit: str) -> str:
    return f"{decimal(micro)} {unit}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return " ".join(value) if isinstance(value, tuple) else value
