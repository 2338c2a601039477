"""`rerankd credits`: what callers can spend."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from rerankd.accounts.statement import StatementLine, statement
from rerankd.accounts.validation import read_amount
from rerankd.cli.options import DAY, NONE_GIVEN, Given, command
from rerankd.cli.store import AS_TABLE, Formats, account_of, action, currency, opened, print_records, show_money
from rerankd.cli.table import show_table

app = command("credits")


@action(app, "add")
def add(
    email: str,
    amount: str,
    /,
    *,
    note: Annotated[str, Parameter(metavar="TEXT", show_default=False)] = "",
    given: Given = NONE_GIVEN,
) -> int:
    """Add to an account's balance.

    Args:
        email: the account's e-mail address
        amount: in the currency of the price list, as 25.00; -5 takes away
        note: what it is for
    """
    unit, micro = currency(given), read_amount(amount)
    with opened(given) as store:
        account = account_of(store, email)
        credit = store.ledger.add_credits(account.id, micro, note)
    print(f"{account.email}: {show_money(micro, unit)}; the balance is {show_money(credit.balance_after, unit)}.")
    return 0


@action(app, "list")
def list_credits(
    email: str,
    /,
    *,
    since: Annotated[datetime | None, DAY] = None,
    until: Annotated[datetime | None, DAY] = None,
    formats: Formats = AS_TABLE,
    given: Given = NONE_GIVEN,
) -> int:
    """Show an account's statement: each credit, and the charges of each day.

    Args:
        email: the account's e-mail address
        since: from this day (UTC) on, as 2030-01-01
        until: up to and including this day
    """
    unit = currency(given)
    with opened(given) as store:
        days = since and since.date(), until and until.date() + timedelta(days=1)
        lines = statement(store.database, account_of(store, email).id, *days)
    if print_records(formats, [_record(line, unit) for line in lines]):
        return 0
    rows = [
        (line.time, _kind(line), line.note, line.by, show_money(line.amount, unit), show_money(line.balance, unit))
        for line in lines
    ]
    show_table(("time, UTC", "what", "note", "by", "amount", "balance"), rows, numbers=("amount", "balance"))
    return 0


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
