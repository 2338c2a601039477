"""`rerankd usage`: what was charged."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from rerankd.accounts.usage import UsageRow, as_csv, usage
from rerankd.accounts.validation import show_amount
from rerankd.cli.options import add_settings
from rerankd.cli.store import account_of, currency, day, opened, show_table
from rerankd.config import DatabaseSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by",
        type=lambda text: text.split(","),
        default=["day"],
        metavar="WHAT,…",
        help="day (UTC), key, model, account, or several of them, as in key,day (default: day)",
    )
    parser.add_argument("--account", metavar="EMAIL", help="only of one account")
    parser.add_argument("--since", type=day, metavar="DAY", help="from this day on, as 2030-01-01")
    parser.add_argument("--until", type=day, metavar="DAY", help="up to this day, and with it")
    parser.add_argument("--csv", action="store_true", help="print CSV")
    add_settings(parser, DatabaseSettings)


def run(options: argparse.Namespace) -> int:
    by, unit = options.by, currency(options)
    until = options.until and options.until + timedelta(days=1)
    with opened(options) as store:
        account_id = account_of(store, options.account).id if options.account else None
        rows = usage(store.database, by, account_id, options.since, until)
        total = usage(store.database, [], account_id, options.since, until) if len(rows) > 1 else []
    if options.csv:
        sys.stdout.write(as_csv(rows, by))
        return 0
    lines = [(*(getattr(row, name) for name in by), *_sums(row)) for row in rows]
    lines += [("all", *("" for _ in by[1:]), *_sums(row)) for row in total]
    sums = ("calls", "tokens", "free tokens", "billed tokens", f"cost, {unit}")
    show_table((*by, *sums), lines, numbers=sums)
    return 0


def _sums(row: UsageRow) -> tuple[str, ...]:
    counts = (row.calls, row.tokens, row.free_tokens, row.billed_tokens)
    return *(f"{count:,}" for count in counts), show_amount(row.cost)
