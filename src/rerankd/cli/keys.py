"""`rerankd keys`: API keys of accounts."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from rerankd.accounts.keys import Key
from rerankd.accounts.validation import read_amount, read_budget
from rerankd.cli.options import NONE_GIVEN, Given, command, converter
from rerankd.cli.store import (
    AS_TABLE,
    NO_LIMIT_OPTIONS,
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

SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

app = command("keys")


def _expiry(text: str) -> datetime:
    if found := re.fullmatch(r"(\d{1,4})([hdw])", text):
        return datetime.now(UTC) + int(found[1]) * SPANS[found[2]]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ValueError(f"{text!r} is not like 90d or 2030-12-31") from None


@action(app, "create")
def create(
    *,
    account: Annotated[str, Parameter(metavar="EMAIL")],
    name: Annotated[str, Parameter(metavar="NAME")],
    expires: Annotated[datetime | None, Parameter(converter=converter(_expiry), metavar="WHEN")] = None,
    model: Annotated[tuple[str, ...], Parameter(metavar="NAME", show_default=False)] = (),
    budget: Annotated[str, Parameter(metavar="AMOUNT", show_default=False)] = "",
    limits: Limits = NO_LIMIT_OPTIONS,
    given: Given = NONE_GIVEN,
) -> int:
    """Create a key, and print its secret, which is never shown again.

    Args:
        account: the account that its calls are charged to
        name: what it is for
        expires: after 12h, 90d or 6w, or on a day: 2030-12-31
        model: allow this model only; repeatable
        budget: what its calls may cost in a calendar month, in the currency of the price list, as 25.00
    """
    with opened(given) as store:
        owner = account_of(store, account)
        key, secret = store.keys.create(owner.id, name, expires, list(model), limits_from(limits), read_budget(budget))
    # On stderr, so that a pipe gets the secret only.
    print(f"Made key {key.id} of {owner.email}. It is shown this once:", file=sys.stderr)
    if key.models:
        print(f"It may use only: {', '.join(key.models)}.", file=sys.stderr)
    print(secret)
    return 0


@action(app, "list")
def list_keys(
    *,
    account: Annotated[str | None, Parameter(metavar="EMAIL")] = None,
    formats: Formats = AS_TABLE,
    given: Given = NONE_GIVEN,
) -> int:
    """List keys.

    Args:
        account: keys of this account only
    """
    unit = currency(given)
    with opened(given) as store:
        keys = store.keys.all() if account is None else store.keys.of_account(account_of(store, account).id)
        emails = {one.id: one.email for one in store.accounts.all()}
    if print_records(formats, [_record(key, emails[key.account_id], unit) for key in keys]):
        return 0
    columns = ("id", "account", "name", "key", "models", "own limits", "spent this month", "created", "last used", "")
    show_table(columns, [_row(key, emails[key.account_id], unit) for key in keys], numbers=("id",))
    return 0


@action(app, "revoke")
def revoke(number: Annotated[int, Parameter(name="ID")], /, *, given: Given = NONE_GIVEN) -> int:
    """Revoke a key: it stops working at once.

    Args:
        number: its number in the list
    """
    with opened(given) as store:
        store.keys.revoke(number)
    print(f"Key {number} is revoked.")
    return 0


@action(app, "budget")
def budget(number: Annotated[int, Parameter(name="ID")], amount: str, /, *, given: Given = NONE_GIVEN) -> int:
    """Set what the calls of a key may cost in a calendar month (UTC).

    Args:
        number: its number in the list
        amount: in the currency of the price list, as 25.00; 'none': any amount
    """
    unit, micro = currency(given), None if amount == "none" else read_amount(amount, "budget")
    with opened(given) as store:
        key = store.keys.set_budget(number, micro)
    may = "any amount" if micro is None else f"{show_money(micro, unit)} a month"
    print(f"Key {number} may spend {may}; it has spent {show_money(key.spent, unit)} in this month.")
    return 0


def _row(key: Key, email: str, unit: str) -> tuple[object, ...]:
    return (
        key.id,
        email,
        key.name,
        key.hint,
        ", ".join(key.models) or "all",
        show_limits(key.limits),
        _spent(key, unit),
        key.created,
        key.last_used or "never",
        _state(key),
    )


def _record(key: Key, email: str, unit: str) -> dict[str, object]:
    return {
        "id": key.id,
        "account": email,
        "name": key.name,
        "key": key.hint,
        "models": key.models,
        **asdict(key.limits),
        "budget": key.budget,
        "spent_this_month": key.spent,
        "currency": unit,
        "created": key.created,
        "last_used": key.last_used,
        "expires": key.expires,
        "revoked": key.revoked,
    }


def _spent(key: Key, unit: str) -> str:
    spent = show_money(key.spent, unit)
    return spent if key.budget is None else f"{spent} of {show_money(key.budget, unit)}"


def _state(key: Key) -> str:
    if key.revoked:
        return "revoked"
    if not key.is_usable(datetime.now(UTC)):
        return "expired"
    return f"expires {key.expires:%Y-%m-%d}" if key.expires else ""
