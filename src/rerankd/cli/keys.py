"""`rerankd keys`: what callers show."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from rerankd.accounts.keys import Key
from rerankd.accounts.store import Store
from rerankd.cli.store import (
    account_of,
    add_actions,
    add_formats,
    add_limits,
    limits_from,
    opened,
    print_records,
    show_limits,
    show_table,
)

SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = add_actions(parser)
    create = add("create", "make a key, and print its secret, which cannot be had again")
    create.add_argument("--account", required=True, metavar="EMAIL", help="whom its calls are charged to")
    create.add_argument("--name", required=True, help="what it is for")
    create.add_argument("--expires", type=_expiry, metavar="WHEN", help="after 12h, 90d or 6w, or on a day: 2030-12-31")
    create.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="it may use only this one; may be repeated"
    )
    add_limits(create)
    listing = add("list", "list keys")
    listing.add_argument("--account", metavar="EMAIL", help="only those of one account")
    add_formats(listing)
    revoke = add("revoke", "let a key in no more, from now on")
    revoke.add_argument("id", type=int, metavar="ID", help="its number in the list")


def run(options: argparse.Namespace) -> int:
    with opened(options) as store:
        return ACTIONS[options.action](store, options)


def _create(store: Store, options: argparse.Namespace) -> int:
    account = account_of(store, options.account)
    key, secret = store.keys.create(account.id, options.name, options.expires, options.model, limits_from(options))
    # Beside the secret, not with it: stdout can be piped.
    print(f"Made key {key.id} of {account.email}. It is shown this once:", file=sys.stderr)
    if key.models:
        print(f"It may use only: {', '.join(key.models)}.", file=sys.stderr)
    print(secret)
    return 0


def _list(store: Store, options: argparse.Namespace) -> int:
    if options.account is None:
        keys = store.keys.all()
    else:
        keys = store.keys.of_account(account_of(store, options.account).id)
    emails = {account.id: account.email for account in store.people.all()}
    if print_records(options, [_record(key, emails[key.account_id]) for key in keys]):
        return 0
    rows = [
        (
            key.id,
            emails[key.account_id],
            key.name,
            key.hint,
            ", ".join(key.models) or "all",
            show_limits(key.limits),
            key.created,
            key.last_used or "never",
            _state(key),
        )
        for key in keys
    ]
    columns = ("id", "account", "name", "key", "models", "own limits", "created", "last used", "")
    show_table(columns, rows, numbers=("id",))
    return 0


def _record(key: Key, email: str) -> dict[str, object]:
    return {
        "id": key.id,
        "account": email,
        "name": key.name,
        "key": key.hint,
        "models": key.models,
        **asdict(key.limits),
        "created": key.created,
        "last_used": key.last_used,
        "expires": key.expires,
        "revoked": key.revoked,
    }


def _revoke(store: Store, options: argparse.Namespace) -> int:
    store.keys.revoke(options.id)
    print(f"Key {options.id} is revoked.")
    return 0


ACTIONS = {"create": _create, "list": _list, "revoke": _revoke}


def _state(key: Key) -> str:
    if key.revoked:
        return "revoked"
    if not key.is_usable(datetime.now(UTC)):
        return "expired"
    return f"expires {key.expires:%Y-%m-%d}" if key.expires else ""


def _expiry(text: str) -> datetime:
    if found := re.fullmatch(r"(\d{1,4})([hdw])", text):
        return datetime.now(UTC) + int(found[1]) * SPANS[found[2]]
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither like 90d nor like 2030-12-31") from None
