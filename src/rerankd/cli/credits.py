"""`rerankd credits`: what callers can spend."""

from __future__ import annotations

import argparse
from datetime import timedelta

from rerankd.accounts.statement import StatementLine, statement
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_amount
from rerankd.cli.store import (
    account_of,
    add_actions,
    add_formats,
    currency,
    day,
    opened,
    print_records,
    show_money,
    show_table,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    adding = add_actions(parser)
    add = adding("add", "add to an account's balance")
    add.add_argument("email", metavar="EMAIL")
    add.add_argument("amount", metavar="AMOUNT", help="in the currency of the price list, as 25.00; -5 takes away")
    add.add_argument("--note", default="", help="what for")
    listing = adding("list", "show why an account's balance is what it is: credit, and the charges of each day")
    listing.add_argument("email", metavar="EMAIL")
    listing.add_argument("--since", type=day, metavar="DAY", help="from this day (UTC) on, as 2030-01-01")
    listing.add_argument("--until", type=day, metavar="DAY", help="up to this day, and with it")
    add_formats(listing)


def run(options: argparse.Namespace) -> int:
    return ACTIONS[options.action](options)


def _add(options: argparse.Namespace) -> int:
    unit, micro = currency(options), read_amount(options.amount)
    with opened(options) as store:
        account = account_of(store, options.email)
        credit = store.ledger.add_credits(account.id, micro, options.note)
    print(f"{account.email}: {show_money(micro, unit)}; the balance is {show_money(credit.balance_after, unit)}.")
    return 0


def _list(options: argparse.Namespace) -> int:
    unit = currency(options)
    with opened(options) as store:
        lines = _statement(store, options)
    if print_records(options, [_record(line, unit) for line in lines]):
        return 0
    rows = [
        (line.time, _kind(line), line.note, line.by, show_money(line.amount, unit), show_money(line.balance, unit))
        for line in lines
    ]
    show_table(("time, UTC", "what", "note", "by", "amount", "balance"), rows, numbers=("amount", "balance"))
    return 0


ACTIONS = {"add": _add, "list": _list}


def _statement(store: Store, options: argparse.Namespace) -> list[StatementLine]:
    until = options.until and options.until + timedelta(days=1)
    return statement(store.database, account_of(store, options.email).id, options.since, until)


def _kind(line: StatementLine) -> str:
    return "credit" if line.kind == "credit" else f"{line.calls:,} call{'s' if line.calls > 1 else ''}"


def _record(line: StatementLine, unit: str) -> dict[str, object]:
    return {
        "time": line.time,
        "kind": line.kind,
        "calls": line.calls,
        "note": line.note,
        "by": line.by,
        "amount": line.amount,
        "balance": line.balance,
        "currency": unit,
    }
