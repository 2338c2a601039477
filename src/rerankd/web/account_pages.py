"""The pages of one's own account: keys and usage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.budget import next_month
from rerankd.accounts.keys import Key
from rerankd.accounts.ledger import Quota
from rerankd.accounts.schema import LIMITS
from rerankd.accounts.sessions import Session
from rerankd.accounts.usage import By, as_csv, usage
from rerankd.accounts.validation import read_budget
from rerankd.admission.gate import merge_limits
from rerankd.errors import InvalidRequest
from rerankd.prices import Price
from rerankd.types import CallLimits
from rerankd.web.cookies import end_show, show_once, to_show
from rerankd.web.forms import NO_REFUSAL, Form, Refusal
from rerankd.web.page_group import PageGroup
from rerankd.web.pages import Page
from rerankd.web.shown_account import account_paths
from rerankd.web.usage_report import UsageReport, daily_usage, days_as_csv, requested_period, usage_report

DONE = {"budget": "The budget is set.", "revoked": "The key is revoked."}

CSV_COLUMNS: tuple[By, ...] = ("day", "key", "model")
"""The columns before the sums."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created. not_served: models of the key that are not served now."""

    key: Key
    secret: str
    not_served: Sequence[str]


@dataclass(frozen=True, slots=True)
class KeysPage(Page):
    """`/keys`.

    Attributes:
        ended: revoked and expired keys.
        min_expiry: the first day that a new key may expire.
        starts_again: the day on which budgets start again.
        done: a message after a change.
    """

    template: ClassVar[str] = "keys.html"
    usable: Sequence[Key]
    ended: Sequence[Key]
    models: Sequence[str]
    min_expiry: datetime
    problem: str
    typed: Form
    created: NewKey | None
    currency: str
    starts_again: date
    done: str


@dataclass(frozen=True, slots=True)
class UsagePage(Page):
    """`/usage`. limits: the account's limits in force."""

    template: ClassVar[str] = "usage.html"
    usage: UsageReport
    account: Account
    currency: str
    quotas: Sequence[tuple[Price, Quota]]
    limits: CallLimits


class AccountPages(PageGroup):
    """`/keys`, `/usage` and its CSV files; the one by day of every account also for administrators."""

    def add_to(self, router: APIRouter) -> None:
        self._guards.page(router, "/keys", self.keys)
        self._guards.form(router, "/keys", self.create_key, self.keys, "member")
        self._guards.form(router, "/keys/{key_id:row}/revoke", self.revoke_key, self.keys, "member")
        self._guards.form(router, "/keys/budget", self.set_budget, self.keys, "member")
        self._guards.page(router, "/usage", self.usage)
        self._guards.page(router, "/usage.csv", self.usage_csv)
        for path, access in account_paths("/usage-by-day.csv"):
            self._guards.page(router, path, self.days_csv, access)

    def keys(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        now = datetime.now(UTC)
        keys = self._store.keys.of_account(session.payer.id)
        page = KeysPage(
            usable=[key for key in keys if key.is_usable(now)],
            ended=[key for key in keys if not key.is_usable(now)],
            models=self._context.model_names(),
            min_expiry=now + timedelta(days=1),
            problem=refusal.problem,
            typed=refusal.typed,
            created=self._created(request, keys),
            currency=self._currency,
            starts_again=next_month(now),
            done=DONE.get(request.query_params.get("done", ""), ""),
        )
        response = self._pages.render(page, request, session, refusal.status)
        return end_show(response, request, "/keys")

    def create_key(self, request: Request, session: Session, form: Form) -> Response:
        expires = _end_of(form["expires"]) if form["expires"] else None
        models = form.all("model")  # also names that are not served now: a confined key stays confined
        _, secret = self._store.keys.create(
            session.payer.id,
            form["name"],
            expires,
            models,
            read_limits(form),
            read_budget(form["budget"]),
            session.actor,
        )
        return show_once(RedirectResponse("/keys", 303), request, "/keys", secret)

    def revoke_key(self, request: Request, session: Session, form: Form) -> Response:
        self._store.keys.revoke(request.path_params["key_id"], session.payer.id, session.actor)
        return RedirectResponse("/keys?done=revoked", 303)

    def set_budget(self, request: Request, session: Session, form: Form) -> Response:
        key_id, budget = form.number("key") or 0, read_budget(form["budget"])
        self._store.keys.set_budget(key_id, budget, session.payer.id, session.actor)
        return RedirectResponse("/keys?done=budget", 303)

    def usage(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        prices, account = self._context.prices.current(), session.payer
        page = UsagePage(
            usage=usage_report(self._store.database, request, account.id, prices.currency),
            account=account,
            currency=prices.currency,
            quotas=[
                (price, self._store.ledger.quota(account.id, price)) for price in prices.prices if price.free_tokens
            ],
            limits=self._limits_of(account),
        )
        return self._pages.render(page, request, session)

    def usage_csv(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        since, until, days = requested_period(request)
        rows = usage(self._store.database, CSV_COLUMNS, session.payer.id, since, until)
        return self._pages.csv(as_csv(rows, CSV_COLUMNS), f"rerankd-usage-{days}-days.csv")

    def days_csv(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        return self._accounts.with_account(request, session, self._days_csv)

    def _days_csv(self, request: Request, session: Session, account: Account, _: str) -> Response:
        since, until, days = requested_period(request)
        text = days_as_csv(daily_usage(self._store.database, account.id, since, until))
        return self._pages.csv(text, f"rerankd-usage-by-day-{account.id}-{days}-days.csv")

    def _created(self, request: Request, keys: Sequence[Key]) -> NewKey | None:
        """The key that the form before this page created. A reload neither shows it again nor creates a second one."""
        secret = to_show(request, "/keys")
        caller = self._store.keys.find(secret) if secret else None
        key = next((key for key in keys if caller and key.id == caller.key_id), None)
        if key is None:
            return None
        return NewKey(key, secret, [name for name in key.models if name not in self._context.names()])

    def _limits_of(self, account: Account) -> CallLimits:
        """The limits in force: the account's own, else the model's, else the server's."""
        names = self._context.names()
        model_limits = self._context.prices.current().of(names).limits if names else CallLimits()
        return merge_limits(account.limits, model_limits, self._context.settings.limits)


def read_limits(form: Form) -> CallLimits:
    """Raises InvalidRequest for a limit that is not a whole number."""
    return CallLimits(**{name: form.number(name) for name in LIMITS})


def _end_of(day: str) -> datetime:
    """The end of a day, in UTC. Raises InvalidRequest."""
    try:
        return datetime.combine(datetime.fromisoformat(day).date(), time(), UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"Expires: “{day[:40]}” is not a date.") from None
