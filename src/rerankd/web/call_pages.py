"""The list of calls, one by one: of one's own account, of one account, and of all for administrators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.calls import CallFilter, ListedCall, as_csv
from rerankd.accounts.keys import Key
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.web.context import WebContext
from rerankd.web.forms import NO_REFUSAL, Refusal
from rerankd.web.guards import Guards
from rerankd.web.pages import Page, Pages
from rerankd.web.shown_account import ShownAccounts, account_paths

ON_A_PAGE = 50
MAX_CSV_LINES = 50_000
MAX_ID = 10**18

FIELDS = ("days", "outcome", "status", "key", "model", "id")
"""The parameters of the address that choose the calls."""


@dataclass(frozen=True, slots=True)
class CallsPage(Page):
    """`/calls`, `/admin/accounts/{id}/calls` and `/admin/calls`.

    Attributes:
        account: None: of all accounts.
        base: the path of the account's pages, for an administrator; empty for the owner.
        keys: that the list can be confined to; none for all accounts.
        chosen: the filter, by the names of FIELDS.
        older: the query of the next page; empty on the last one.
        query: of this list, without its page.
        kept_days: how long a call stays in the list; 0: none is kept.
    """

    template: ClassVar[str] = "calls.html"
    account: Account | None
    base: str
    calls: Sequence[ListedCall]
    keys: Sequence[Key]
    chosen: Mapping[str, str]
    older: str
    query: str
    kept_days: int
    currency: str


class CallPages:
    """`/calls`, `/calls.csv`, and the same for administrators."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._guards = guards
        self._pages = pages
        self._accounts = ShownAccounts(store, pages)

    def add_to(self, router: APIRouter) -> None:
        for path, role in account_paths("/calls"):
            self._guards.page(router, path, self.show, role)
            self._guards.page(router, f"{path}.csv", self.download, role)
        self._guards.page(router, "/admin/calls", self.show_all, "admin")
        self._guards.page(router, "/admin/calls.csv", self.download_all, "admin")

    def show(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._show)

    def download(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._download)

    def show_all(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._show(request, session, None, "/admin")

    def download_all(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._download(request, session, None, "/admin")

    def _show(self, request: Request, session: Session, account: Account | None, base: str) -> Response:
        chosen = {name: request.query_params.get(name, "").strip()[:300] for name in FIELDS}
        found = self._store.calls.find(_filter(request, account), ON_A_PAGE + 1)
        shown = found[:ON_A_PAGE]
        query = {name: value for name, value in chosen.items() if value}
        page = CallsPage(
            account=account,
            base=base,
            calls=shown,
            keys=self._store.keys.of_account(account.id) if account else (),
            chosen=chosen,
            older=urlencode({**query, "before": str(shown[-1].id)}) if len(found) > len(shown) else "",
            query=urlencode(query),
            kept_days=self._context.settings.call_log_days,
            currency=self._context.prices.current().currency,
        )
        return self._pages.render(page, request, session)

    def _download(self, request: Request, session: Session, account: Account | None, base: str) -> Response:
        wanted = replace(_filter(request, account), before=None)
        pages = self._store.calls.pages(wanted, MAX_CSV_LINES)
        first = next(pages, [])  # before the reply begins: the database may not answer
        text = _csv_of(chain([first], pages), self._context.prices.current().currency)
        return self._pages.csv(text, "rerankd-calls.csv")


def _csv_of(pages: Iterator[list[ListedCall]], currency: str) -> Iterator[str]:
    """In parts, so that a long list waits neither in the database nor in memory."""
    for number, page in enumerate(pages):
        yield as_csv(page, currency, header=not number)


def _filter(request: Request, account: Account | None) -> CallFilter:
    """Which calls are asked for. A parameter that makes no sense chooses nothing."""
    asked = request.query_params
    days, outcome = _number(asked.get("days")), asked.get("outcome")
    return CallFilter(
        account_id=account.id if account else None,
        since=datetime.now(UTC) - timedelta(days=min(days, 3650)) if days else None,
        outcome="answered" if outcome == "answered" else "refused" if outcome == "refused" else None,
        status=_number(asked.get("status"), 999),
        key_id=_number(asked.get("key")),
        model=asked.get("model", "").strip() or None,
        request_id=asked.get("id", "").strip() or None,
        before=_number(asked.get("before")),
    )


def _number(text: str | None, largest: int = MAX_ID) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= largest else None
