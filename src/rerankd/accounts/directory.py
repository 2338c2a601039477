"""The list of accounts for administrators: searched, sorted, and page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, func, or_, select

from rerankd.accounts.accounts import Account, account_of
from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts
from rerankd.accounts.validation import storable

Sort = Literal["email", "name", "role", "created", "credit", "state"]
SORTS: tuple[Sort, ...] = get_args(Sort)

_COLUMNS: Mapping[Sort, ColumnElement[Any]] = {
    "email": accounts.c.email,
    "name": func.lower(accounts.c.name),
    "role": accounts.c.role,
    "created": accounts.c.created,
    "credit": accounts.c.balance - accounts.c.reserved,
    "state": accounts.c.disabled,
}


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the list. total: the accounts on all pages."""

    accounts: tuple[Account, ...]
    total: int


def list_accounts(
    database: Database,
    search: str = "",
    sort: Sort = "email",
    descending: bool = False,
    offset: int = 0,
    limit: int = 50,
) -> Listing:
    """The accounts whose e-mail address or name contains a text, ignoring case; all for an empty text.

    Members of accounts are found by a text only: they are no accounts of their own.
    """
    text = storable(search.strip().lower())
    wanted = or_(
        accounts.c.email.contains(text, autoescape=True), func.lower(accounts.c.name).contains(text, autoescape=True)
    )
    column = _COLUMNS[sort]
    order = (column.desc() if descending else column.asc(), accounts.c.id)
    query = select(accounts).order_by(*order).offset(offset).limit(limit)
    number = select(func.count()).select_from(accounts)
    shown = wanted if text else accounts.c.team_id.is_(None)
    query, number = query.where(shown), number.where(shown)
    with database.read() as connection:
        rows = tuple(account_of(row._mapping) for row in connection.execute(query))
        return Listing(rows, connection.scalar(number) or 0)
