"""The statement of an account, for its owner and for administrators: why a balance is what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.sessions import Session
from rerankd.accounts.statement import StatementLine, as_csv, statement
from rerankd.web.forms import NO_REFUSAL, Refusal
from rerankd.web.page_group import PageGroup
from rerankd.web.pages import Page
from rerankd.web.shown_account import account_paths
from rerankd.web.usage_report import PERIODS, requested_period

MAX_LINES = 1000
"""On the page; the CSV file has all of them."""


@dataclass(frozen=True, slots=True)
class StatementPage(Page):
    """`/statement` and `/admin/accounts/{id}/statement`.

    Attributes:
        base: the path of the account's pages, for an administrator; empty for the owner.
        lines: the newest first.
        is_cut: older lines of the period are left out.
    """

    template: ClassVar[str] = "statement.html"
    account: Account
    base: str
    lines: Sequence[StatementLine]
    is_cut: bool
    currency: str
    days: int
    periods: tuple[int, ...]


class StatementPages(PageGroup):
    """`/statement`, `/statement.csv`, and the same of every account for administrators."""

    def add_to(self, router: APIRouter) -> None:
        for path, access in account_paths("/statement"):
            self._guards.page(router, path, self.show, access)
            self._guards.page(router, f"{path}.csv", self.download, access)

    def show(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._show)

    def download(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._download)

    def _show(self, request: Request, session: Session, account: Account, base: str) -> Response:
        since, until, days = requested_period(request)
        lines = statement(self._store.database, account.id, since, until, MAX_LINES + 1)
        page = StatementPage(
            account=account,
            base=base,
            lines=lines[: -MAX_LINES - 1 : -1],
            is_cut=len(lines) > MAX_LINES,
            currency=self._currency,
            days=days,
            periods=PERIODS,
        )
        return self._pages.render(page, request, session)

    def _download(self, request: Request, session: Session, account: Account, base: str) -> Response:
        since, until, days = requested_period(request)
        lines = statement(self._store.database, account.id, since, until)
        if not base:  # which administrator gave the credit is for administrators
            lines = [_without_giver(line) for line in lines]
        text = as_csv(lines, self._currency)
        return self._pages.csv(text, f"rerankd-statement-{account.id}-{days}-days.csv")


def _without_giver(line: StatementLine) -> StatementLine:
    return StatementLine(line.time, line.kind, line.note, None, line.calls, line.amount, line.balance)
