"""`rerankd credits`: what callers can spend."""

from __future__ import annotations

import argparse

from rerankd.accounts.fields import read_amount
from rerankd.cli.store import account_of, add_actions, currency, opened, show_money


def add_options(parser: argparse.ArgumentParser) -> None:
    add = add_actions(parser)("add", "add to an account's balance")
    add.add_argument("email", metavar="EMAIL")
    add.add_argument("amount", metavar="AMOUNT", help="in the currency of the rate card, as 25.00; -5 takes away")
    add.add_argument("--note", default="", help="what for")


def run(options: argparse.Namespace) -> int:
    unit, micro = currency(options), read_amount(options.amount)
    with opened(options) as store:
        account = account_of(store, options.email)
        credit = store.ledger.add_credits(account.id, micro, options.note)
    print(f"{account.email}: {show_money(micro, unit)}; the balance is {show_money(credit.balance_after, unit)}.")
    return 0
