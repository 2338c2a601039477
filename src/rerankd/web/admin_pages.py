"""The pages for administrators: accounts, usage, the server, and what administrators did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.admin_log import AdminAction
from rerankd.accounts.directory import SORTS, Listing, Sort, list_accounts
from rerankd.accounts.sessions import Session
from rerankd.accounts.usage import By, as_csv, usage
from rerankd.web import formatting
from rerankd.web.admin_account_pages import back_to
from rerankd.web.forms import NO_REFUSAL, Form, Refusal, role_of
from rerankd.web.listing import ON_A_PAGE, number_of, page_of, text_of
from rerankd.web.page_group import PageGroup
from rerankd.web.pages import Page
from rerankd.web.shown_account import ONE_ACCOUNT
from rerankd.web.upstream_pages import UpstreamForms, UpstreamRow, upstream_rows
from rerankd.web.usage_report import UsageReport, daily_usage, days_as_csv, requested_period, usage_report

MAX_SEARCH, MAX_PAGES = 254, 10**7

CSV_COLUMNS: tuple[By, ...] = ("account", "model")
"""The columns before the sums."""


@dataclass(frozen=True, slots=True)
class AdminPage(Page):
    """`/admin`: the accounts.

    Attributes:
        search: a part of an e-mail address or a name.
        sort: a column; with a minus sign before it, in descending order.
        number, last: of this page, and of the last one; from 1.
        query: the address of a page of this list, less its number.
        invitation: the link of an invitation that was just created.
    """

    template: ClassVar[str] = "admin.html"
    listing: Listing
    search: str
    sort: str
    number: int
    last: int
    query: str
    currency: str
    problem: str
    typed: Form
    invitation: str | None


@dataclass(frozen=True, slots=True)
class AdminUsagePage(Page):
    """`/admin/usage`: the charged calls of all accounts."""

    template: ClassVar[str] = "admin_usage.html"
    usage: UsageReport
    currency: str


@dataclass(frozen=True, slots=True)
class AdminServerPage(Page):
    """`/admin/server`. tiles: figures by name. upstreams: none where no other server scores."""

    template: ClassVar[str] = "admin_server.html"
    tiles: Mapping[str, str]
    upstreams: Sequence[UpstreamRow]
    problem: str


@dataclass(frozen=True, slots=True)
class AdminLogPage(Page):
    """`/admin/log` and `/admin/accounts/{id}/log`. account: None: of all. older: the id before which a page goes on."""

    template: ClassVar[str] = "admin_log.html"
    account: Account | None
    base: str
    actions: Sequence[AdminAction]
    older: int | None


class AdminPages(PageGroup):
    """`/admin` and its tabs."""

    def add_to(self, router: APIRouter) -> None:
        guards = self._guards
        guards.page(router, "/admin", self.overview, "admin")
        guards.page(router, "/admin/usage", self.usage, "admin")
        guards.page(router, "/admin/usage.csv", self.usage_csv, "admin")
        guards.page(router, "/admin/usage-by-day.csv", self.days_csv, "admin")
        guards.page(router, "/admin/server", self.server, "admin")
        guards.page(router, "/admin/status", self.status, "admin")
        guards.page(router, "/admin/log", self.log, "admin")
        guards.page(router, f"{ONE_ACCOUNT}/log", self.log_of_account, "admin")
        guards.form(router, "/admin/accounts", self.create_account, self.overview, "admin", guards.hashing)
        if self._context.settings.sign_up != "off":
            guards.form(router, "/admin/invites", self.invite, self.overview, "admin")
        UpstreamForms(self._context.models, guards, self.server).add_to(router)

    def overview(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        return self._overview(request, session, refusal, None)

    def usage(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        report = usage_report(self._store.database, request, None, self._currency)
        return self._pages.render(AdminUsagePage(report, self._currency), request, session)

    def usage_csv(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        since, until, days = requested_period(request)
        rows = usage(self._store.database, CSV_COLUMNS, None, since, until)
        return self._pages.csv(as_csv(rows, CSV_COLUMNS), f"rerankd-usage-of-accounts-{days}-days.csv")

    def days_csv(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        since, until, days = requested_period(request)
        text = days_as_csv(daily_usage(self._store.database, None, since, until))
        return self._pages.csv(text, f"rerankd-usage-by-day-{days}-days.csv")

    def server(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        page = AdminServerPage(self._tiles(), upstream_rows(self._context.models), refusal.problem)
        return self._pages.render(page, request, session, refusal.status)

    def status(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        """The figures of the server, for its script."""
        return self._pages.guard(JSONResponse(self._tiles()))

    def log(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._log(request, session, None, "/admin")

    def log_of_account(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._log)

    def create_account(self, request: Request, session: Session, form: Form) -> Response:
        password = form["password"] or None
        account = self._store.accounts.create(
            form["email"], form["name"], password, role_of(form), by=session.account.id
        )
        return back_to(account.id, "made")

    def invite(self, request: Request, session: Session, form: Form) -> Response:
        token = self._store.invites.create(session.account.id, form["email"].strip() or None)
        # After the #: browsers send it to no server, so it reaches no log and no other site.
        link = f"{self._context.address(request)}/sign-up#{token}"
        return self._overview(request, session, NO_REFUSAL, link)

    def _overview(self, request: Request, session: Session, refusal: Refusal, invitation: str | None) -> Response:
        search, number = text_of(request, "search", MAX_SEARCH), number_of(request, "page", MAX_PAGES) or 1
        column, is_descending = _sort_of(text_of(request, "sort"))
        listing = self._listing(search, column, is_descending, number)
        last = max(1, -(-listing.total // ON_A_PAGE))
        if number > last:
            number, listing = last, self._listing(search, column, is_descending, last)
        page = AdminPage(
            listing=listing,
            search=search,
            sort=f"-{column}" if is_descending else column,
            number=number,
            last=last,
            query=urlencode({"search": search, "sort": f"{'-' * is_descending}{column}"}),
            currency=self._currency,
            problem=refusal.problem,
            typed=refusal.typed,
            invitation=invitation,
        )
        return self._pages.render(page, request, session, refusal.status)

    def _listing(self, search: str, sort: Sort, is_descending: bool, number: int) -> Listing:
        offset = (number - 1) * ON_A_PAGE
        return list_accounts(self._store.database, search, sort, is_descending, offset, ON_A_PAGE)

    def _log(self, request: Request, session: Session, account: Account | None, base: str) -> Response:
        account_id = account.id if account else None
        shown, older = page_of(self._store.admin_log.find(ON_A_PAGE + 1, number_of(request, "before"), account_id))
        return self._pages.render(AdminLogPage(account, base, shown, older), request, session)

    def _tiles(self) -> dict[str, str]:
        """The server's figures, formatted, by name."""
        served, status = self._context.models.default, self._context.status
        stage, share = served.progress
        health = (
            f"ready: {served.scorer.info.name}" if served.ready else f"loading ({stage}, {formatting.share(share)})"
        )
        if status is None:
            return {"Health": health}
        now = status()
        return {
            "Health": health,
            "Running": formatting.number(now.running),
            "Waiting": formatting.number(now.waiting),
            "Requests in the last minute": formatting.short(now.requests_per_minute),
            "Tokens per second": formatting.short(now.tokens_per_second),
            "Prefix cache hits": formatting.share(now.prefix_hit_share),
            "Score cache hits": formatting.share(now.score_hit_share),
            "Up for": formatting.duration(now.uptime_s),
        }


def _sort_of(text: str) -> tuple[Sort, bool]:
    """(column, whether descending); by e-mail address where there is no such column."""
    column: Sort = next((name for name in SORTS if name == text.removeprefix("-")), "email")
    return column, text == f"-{column}"
