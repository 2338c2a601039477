"""`rerankd accounts`: creates, changes and lists accounts."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter, validators
from rich.console import Console

from rerankd.accounts.accounts import Account, Role
from rerankd.accounts.backup import back_up
from rerankd.accounts.deletion import delete_account
from rerankd.accounts.validation import read_email
from rerankd.cli.members import ACTIONS
from rerankd.cli.options import FLAG, NONE_GIVEN, OPTIONS, Given, command, settings_from
from rerankd.cli.store import (
    AS_TABLE,
    NO_LIMIT_OPTIONS,
    Email,
    Formats,
    Limits,
    account_of,
    action,
    currency,
    limits_from,
    opened,
    print_records,
    show_limits,
    show_money,
)
from rerankd.cli.table import show_table
from rerankd.cli.typed_password import read_password
from rerankd.config import DatabaseSettings
from rerankd.errors import InvalidRequest

app = command("accounts")

ONE_PASSWORD = Parameter(group=(OPTIONS, Group("password", show=False, validator=validators.MutuallyExclusive())))


@action(app, "create")
def create(
    email: Email,
    /,
    *,
    name: Annotated[str, Parameter(metavar="NAME", show_default=False)] = "",
    admin: Annotated[bool, FLAG] = False,
    password_stdin: Annotated[bool, FLAG, ONE_PASSWORD] = False,
    no_password: Annotated[bool, FLAG, ONE_PASSWORD] = False,
    limits: Limits = NO_LIMIT_OPTIONS,
    given: Given = NONE_GIVEN,
) -> int:
    """Create an account; asks for its password.

    Args:
        name: a name to show (default: the e-mail address)
        admin: let it see and change all accounts on the web page
        password_stdin: read the password from the first line of stdin
        no_password: create it without a password: nobody can sign in, its keys work
    """
    with opened(given) as store:
        email = read_email(email)
        if store.accounts.by_email(email):
            raise InvalidRequest(f"{email} has an account already.")
        password = None if no_password else read_password(password_stdin)
        role: Role = "admin" if admin else "user"
        account = store.accounts.create(email, name, password, role, limits_from(limits))
    print(f"Made the {'administrator' if admin else 'account'} {account.email}.")
    return 0


@action(app, "list")
def list_accounts(*, formats: Formats = AS_TABLE, given: Given = NONE_GIVEN) -> int:
    """List all accounts."""
    unit = currency(given)
    with opened(given) as store:
        accounts = store.accounts.all()
    if print_records(formats, [_record(account, unit) for account in accounts]):
        return 0
    columns = ("e-mail", "name", "role", "balance", "reserved", "own limits", "created", "")
    show_table(columns, [_row(account, unit) for account in accounts], numbers=("balance", "reserved"))
    return 0


def _row(account: Account, unit: str) -> tuple[object, ...]:
    return (
        account.email,
        account.name,
        account.role,
        show_money(account.balance, unit),
        show_money(account.reserved, unit),
        show_limits(account.limits),
        account.created,
        _state(account),
    )


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
        "member_of": account.team_id,
        "member_role": account.member_role,
    }


def _state(account: Account) -> str:
    if account.is_deleted:
        return "deleted"
    if account.disabled:
        return "disabled"
    if account.member_role == "none":
        return "removed"
    return f"{account.member_role} of account {account.team_id}" if account.team_id else ""


@action(app, "password")
def password(email: Email, /, *, password_stdin: Annotated[bool, FLAG] = False, given: Given = NONE_GIVEN) -> int:
    """Change an account's password; signs it out everywhere.

    Args:
        password_stdin: read the password from the first line of stdin
    """
    with opened(given) as store:
        account = account_of(store, email)
        store.accounts.set_password(account.id, read_password(password_stdin))
    print(f"Changed the password of {account.email}, and signed it out everywhere.")
    return 0


@action(app, "remove-second-factor")
def remove_second_factor(email: Email, /, *, given: Given = NONE_GIVEN) -> int:
    """Remove an account's second factor, whose device is lost: the password alone signs in then."""
    with opened(given) as store:
        account = account_of(store, email)
        store.second_factors.turn_off(account.id)
    print(f"{account.email} signs in without a second factor.")
    return 0


@action(app, "disable")
def disable(email: Email, /, *, given: Given = NONE_GIVEN) -> int:
    """Disable an account: it can neither call nor sign in."""
    return _set_disabled(email, True, given)


@action(app, "enable")
def enable(email: Email, /, *, given: Given = NONE_GIVEN) -> int:
    """Enable a disabled account."""
    return _set_disabled(email, False, given)


def _set_disabled(email: str, disabled: bool, given: Given) -> int:
    with opened(given) as store:
        account = account_of(store, email)
        (store.accounts.disable if disabled else store.accounts.enable)(account.id)
    print(f"{account.email} is {'disabled' if disabled else 'enabled'}.")
    return 0


@action(app, "delete")
def delete(email: Email, /, *, yes: Annotated[bool, FLAG] = False, given: Given = NONE_GIVEN) -> int:
    """Delete an account for ever; asks for its address again.

    Its keys are refused, and its entries stay under a number.

    Args:
        yes: delete it without a question
    """
    with opened(given) as store:
        account = account_of(store, email)
        if not yes:
            _ask_before_deletion(account.email)
        delete_account(store.database, account.id)
    print(f"Deleted {account.email}. Its entries stay, as those of account {account.id}.")
    return 0


def _ask_before_deletion(email: str) -> None:
    """Raises InvalidRequest: the address is not typed again, or there is no terminal to ask on."""
    if not sys.stdin.isatty():
        raise InvalidRequest("A deletion cannot be undone, and there is no terminal to ask on: pass --yes.")
    question = f"This deletes {email} and its keys for ever. Type the address to continue: "
    print(question, end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != email:
        raise InvalidRequest(f"That is another address: {email} is not deleted.")


@action(app, "limits")
def limits(email: Email, /, *, limits: Limits = NO_LIMIT_OPTIONS, given: Given = NONE_GIVEN) -> int:
    """Show an account's own limits, or change those that are given."""
    with opened(given) as store:
        account = account_of(store, email)
        changed = limits_from(limits, account.limits)
        if changed != account.limits:
            store.accounts.set_limits(account.id, changed)
    print(f"{account.email}: {show_limits(changed) or 'no limits of its own'}.")
    return 0


@action(app, "check")
def check(*, given: Given = NONE_GIVEN) -> int:
    """Check that all balances add up; the status is 1 if one does not."""
    with opened(given) as store:
        wrong = store.ledger.check()
    for sentence in wrong:
        Console(highlight=False, soft_wrap=True).print(sentence, style="red", markup=False)
    if not wrong:
        print("All balances add up.")
    return 1 if wrong else 0


@action(app, "backup")
def backup(file: Path, /, *, given: Given = NONE_GIVEN) -> int:
    """Copy a SQLite database while servers use it, without an upgrade of its tables.

    Args:
        file: a new file
    """
    back_up(settings_from(DatabaseSettings, given).require_database(), file)
    print(f"Copied the database to {file}.")
    return 0


for _name, _function in ACTIONS.items():
    action(app, _name)(_function)
