"""What the commands about accounts share: actions, the database, whose account is meant, limits and tables."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time

from rich.table import Table
from rich.text import Text

from rerankd.accounts.people import Account
from rerankd.accounts.schema import LIMITS, NO_LIMITS
from rerankd.accounts.store import Store, open_store
from rerankd.accounts.usage import csv_cell
from rerankd.accounts.validation import show_amount
from rerankd.cli.console import output_console
from rerankd.cli.options import add_settings, settings_from
from rerankd.config import DatabaseSettings
from rerankd.errors import InvalidRequest
from rerankd.prices import PriceFile
from rerankd.types import CallLimits

UNFOLDED = 10_000
"""Columns of a table that is piped: a line for each row, however long."""

AddAction = Callable[[str, str], argparse.ArgumentParser]


def add_actions(parser: argparse.ArgumentParser) -> AddAction:
    """A command with actions: gives what adds one, by its name and a summary. The name becomes `options.action`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        add_settings(action, DatabaseSettings)
        return action

    return add


def add_limits(parser: argparse.ArgumentParser) -> None:
    """An option for each limit; those that are not given stay absent."""
    for name in LIMITS:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_limit,
            metavar="N",
            default=argparse.SUPPRESS,
            help="at most so many; 'none': the model's or the server's limit",
        )


def limits_from(options: argparse.Namespace, before: CallLimits = NO_LIMITS) -> CallLimits:
    """The limits of a parsed command line; those that were not given stay as they were."""
    return replace(before, **{name: value for name, value in vars(options).items() if name in LIMITS})


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Store]:
    """The accounts that a parsed command line means.

    Raises:
        SettingsError: a setting is malformed, or the database cannot be used.
    """
    settings = settings_from(options, DatabaseSettings)
    store = open_store(settings.require_database(), make_folder=settings.has_default_database)
    try:
        yield store
    finally:
        store.database.close()


def currency(options: argparse.Namespace) -> str:
    """Of the price list that a parsed command line means."""
    return PriceFile(settings_from(options, DatabaseSettings).config).current().currency


def account_of(store: Store, email: str) -> Account:
    """Raises InvalidRequest where there is none."""
    account = store.people.by_email(email)
    if account is None:
        raise InvalidRequest(f"There is no account {email}.")
    return account


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str] = ()) -> None:
    """Prints a table; the columns that hold `numbers` are aligned to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    output_console(UNFOLDED).print(table)


def add_formats(parser: argparse.ArgumentParser) -> None:
    """Options for a list that a program reads."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="print CSV")
    how.add_argument("--json", action="store_true", help="print one JSON array")


def print_records(options: argparse.Namespace, records: Sequence[Mapping[str, object]]) -> bool:
    """Prints what a program reads, if that was asked for: times as ISO 8601 in UTC, money in millionths."""
    plain = [{name: _plain(value) for name, value in record.items()} for record in records]
    if options.json:
        print(json.dumps(plain, ensure_ascii=False, indent=2))
    elif options.csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(records[0] if records else ())
        lines.writerows(
            [csv_cell(value) if isinstance(value, str) else value for value in one.values()] for one in plain
        )
    return bool(options.json or options.csv)


def show_limits(limits: CallLimits) -> str:
    """The limits that there are, in few words."""
    words = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at a time"}
    given = ((getattr(limits, name), unit) for name, unit in words.items())
    return ", ".join(f"{value} {unit}" for value, unit in given if value is not None)


def show_money(micro: int, unit: str) -> str:
    return f"{show_amount(micro)} {unit}"


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return " ".join(value) if isinstance(value, tuple) else value


def day(text: str) -> datetime:
    """Its first moment, in UTC. For argparse."""
    try:
        return datetime.combine(date.fromisoformat(text), time(tzinfo=UTC))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no day like 2030-01-01") from None


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else str(value)


def _limit(text: str) -> int | None:
    return None if text == "none" else int(text)
