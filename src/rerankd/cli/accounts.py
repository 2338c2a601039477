"""`rerankd accounts`: who may call."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from getpass import getpass
from pathlib import Path

from rich.console import Console

from rerankd.accounts.people import PASSWORD_LENGTH, Account, Role, check_password_length
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.cli.store import (
    account_of,
    add_actions,
    add_formats,
    add_limits,
    currency,
    limits_from,
    opened,
    print_records,
    show_limits,
    show_money,
    show_table,
)
from rerankd.errors import InvalidRequest


def add_options(parser: argparse.ArgumentParser) -> None:
    add = add_actions(parser)
    create = add("create", "make an account; asks for its password")
    create.add_argument("email", metavar="EMAIL")
    create.add_argument("--name", default="", help="the e-mail address if left out")
    create.add_argument("--admin", action="store_true", help="may see and change all accounts on the web page")
    how = create.add_mutually_exclusive_group()
    _add_password_stdin(how)
    how.add_argument("--no-password", action="store_true", help="nobody can sign in; its keys work")
    add_limits(create)
    add_formats(add("list", "list all accounts"))
    password = add("password", "change an account's password; signs it out everywhere")
    password.add_argument("email", metavar="EMAIL")
    _add_password_stdin(password)
    add("disable", "let an account neither call nor sign in").add_argument("email", metavar="EMAIL")
    add("enable", "undo disable").add_argument("email", metavar="EMAIL")
    limits = add("limits", "show an account's own limits, or change those that are given")
    limits.add_argument("email", metavar="EMAIL")
    add_limits(limits)
    add("check", "check that all balances add up")
    backup = add("backup", "copy a SQLite database while servers go on")
    backup.add_argument("file", metavar="FILE", type=Path, help="a new file")


def run(options: argparse.Namespace) -> int:
    with opened(options) as store:
        return ACTIONS[options.action](store, options)


def _create(store: Store, options: argparse.Namespace) -> int:
    email = read_email(options.email)
    if store.people.by_email(email):
        raise InvalidRequest(f"{email} has an account already.")
    password = None if options.no_password else _password(options)
    role: Role = "admin" if options.admin else "user"
    account = store.people.create(email, options.name, password, role, limits_from(options))
    print(f"Made the {'administrator' if options.admin else 'account'} {account.email}.")
    return 0


def _list(store: Store, options: argparse.Namespace) -> int:
    unit = currency(options)
    found = store.people.all()
    if print_records(options, [_record(account, unit) for account in found]):
        return 0
    rows = [
        (
            account.email,
            account.name,
            account.role,
            show_money(account.balance, unit),
            show_money(account.reserved, unit),
            show_limits(account.limits),
            account.created,
            "disabled" if account.disabled else "",
        )
        for account in found
    ]
    columns = ("e-mail", "name", "role", "balance", "reserved", "own limits", "created", "")
    show_table(columns, rows, numbers=("balance", "reserved"))
    return 0


def _record(account: Account, unit: str) -> dict[str, object]:
    return {
        "id": account.id,
        "email": account.email,
        "name": account.name,
        "role": account.role,
        "balance": account.balance,
        "reserved": account.reserved,
        "currency": unit,
        **asdict(account.limits),
        "created": account.created,
        "disabled": account.disabled,
    }


def _change_password(store: Store, options: argparse.Namespace) -> int:
    account = account_of(store, options.email)
    store.people.set_password(account.id, _password(options))
    print(f"Changed the password of {account.email}, and signed it out everywhere.")
    return 0


def _disable(store: Store, options: argparse.Namespace) -> int:
    account = account_of(store, options.email)
    store.people.set_disabled(account.id, options.action == "disable")
    print(f"{account.email} is {options.action}d.")
    return 0


def _limits(store: Store, options: argparse.Namespace) -> int:
    account = account_of(store, options.email)
    limits = limits_from(options, account.limits)
    if limits != account.limits:
        store.people.set_limits(account.id, limits)
    print(f"{account.email}: {show_limits(limits) or 'no limits of its own'}.")
    return 0


def _check(store: Store, options: argparse.Namespace) -> int:
    wrong = store.ledger.check()
    for sentence in wrong:
        Console(highlight=False, soft_wrap=True).print(sentence, style="red", markup=False)
    if not wrong:
        print("All balances add up.")
    return 1 if wrong else 0


def _back_up(store: Store, options: argparse.Namespace) -> int:
    store.database.back_up(options.file)
    print(f"Copied the database to {options.file}.")
    return 0


ACTIONS = {
    "create": _create,
    "list": _list,
    "password": _change_password,
    "disable": _disable,
    "enable": _disable,
    "limits": _limits,
    "check": _check,
    "backup": _back_up,
}


def _add_password_stdin(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--password-stdin", action="store_true", help="read the password from the first line of stdin")


def _password(options: argparse.Namespace) -> str:
    """From stdin, or asked for twice on the terminal."""
    if options.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidRequest("There is no terminal to ask for the password on: pass --password-stdin.")
    print(f"It must have from {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters.", file=sys.stderr)
    password = getpass("Password: ")
    check_password_length(password)
    if getpass("The same again: ") != password:
        raise InvalidRequest("The two passwords differ.")
    return password
