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
from rerankd.web.forms import NO_REFUSAL, Refusal
from rerankd.web.listing import ON_A_PAGE, number_of, page_of, text_of
from rerankd.web.page_group import PageGroup
from rerankd.web.pages import Page
from rerankd.web.shown_account import account_paths

MAX_CSV_LINES = 50_000

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


class CallPages(PageGroup):
    """`/calls`, `/calls.csv`, and the same for administrators."""

    def add_to(self, router: APIRouter) -> None:
        for path, access in account_paths("/calls"):
            self._guards.page(router, path, self.show, access)
            self._guards.page(router, f"{path}.csv", self.download, access)
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
        chosen = {name: text_of(request, name) for name in FIELDS}
        shown, older = page_of(self._store.calls.find(_filter(request, account), ON_A_PAGE + 1))
        query = {name: value for name, value in chosen.items() if value}
        page = CallsPage(
            account=account,
            base=base,
            calls=shown,
            keys=self._store.keys.of_account(account.id) if account else (),
            chosen=chosen,
            older=urlencode({**query, "before": older}) if older else "",
            query=urlencode(query),
            kept_days=self._context.settings.call_log_days,
            currency=self._currency,
        )
        return self._pages.render(page, request, session)

    def _download(self, request: Request, session: Session, account: Account | None, base: str) -> Response:
        wanted = replace(_filter(request, account), before=None)
        pages = self._store.calls.pages(wanted, MAX_CSV_LINES)
        first = next(pages, [])  # before the reply begins: the database may not answer
        text = _csv_of(chain([first], pages), self._currency)
        return self._pages.csv(text, "rerankd-calls.csv")


def _csv_of(pages: Iterator[list[ListedCall]], currency: str) -> Iterator[str]:
    """In parts, so that a long list waits neither in the database nor in memory."""
    for number, page in enumerate(pages):
        yield as_csv(page, currency, header=not number)


def _filter(request: Request, account: Account | None) -> CallFilter:
    """The calls that the address asks for. Ignores parameters that make no sense."""
    days, outcome = number_of(request, "days"), text_of(request, "outcome")
    return CallFilter(
        account_id=account.id if account else None,
        since=datetime.now(UTC) - timedelta(days=min(days, 3650)) if days else None,
        outcome="answered" if outcome == "answered" else "refused" if outcome == "refused" else None,
        status=number_of(request, "status", 999),
        key_id=number_of(request, "key"),
        model=text_of(request, "model") or None,
        request_id=text_of(request, "id") or None,
        before=number_of(request, "before"),
    )
