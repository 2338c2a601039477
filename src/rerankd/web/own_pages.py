"""What people see and do about their own account: keys, usage, credit."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.database import Database
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.accounts.usage import By, UsageRow, as_csv, usage
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits
from rerankd.web.charts import bars
from rerankd.web.context import WebContext
from rerankd.web.pages import Pages
from rerankd.web.visitors import Form, Visitors

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency")
COLUMNS: tuple[By, ...] = ("day", "key", "model")
"""Of the CSV file, before the sums."""

PERIODS = (7, 30, 90, 365)
"""Days that can be looked at."""


class OwnPages:
    """The pages `/keys` and `/usage`."""

    def __init__(self, context: WebContext, store: Store, visitors: Visitors, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._visitors = visitors
        self._pages = pages

    def add_to(self, router: APIRouter) -> None:
        self._visitors.show(router, "/keys", self.keys_page)
        self._visitors.act(router, "/keys", self.create_key, self.keys_page)
        self._visitors.act(router, "/keys/{key_id:row}/revoke", self.revoke_key, self.keys_page)
        self._visitors.show(router, "/usage", self.usage_page)
        self._visitors.show(router, "/usage.csv", self.usage_csv)

    def keys_page(self, request: Request, session: Session, /, **told: Any) -> Response:
        now = datetime.now(UTC)
        keys = self._store.keys.of_account(session.account.id)
        values: dict[str, Any] = {
            "usable": [key for key in keys if key.is_usable(now)],
            "gone": [key for key in keys if not key.is_usable(now)],
            "models": self._context.model_names(),
            "today": now + timedelta(days=1),
            "typed": Form(),
            "problem": "",
            "secret": None,
            "made": None,
            "not_served": [],
            **told,
        }
        return self._pages.render("keys.html", request, values.pop("status", 200), session=session, **values)

    def create_key(self, request: Request, session: Session, form: Form) -> Response:
        expires = _end_of(form["expires"]) if form["expires"] else None
        models = form.all("model")  # also names that are not served now: a key that is confined stays so
        key, secret = self._store.keys.create(session.account.id, form["name"], expires, models, read_limits(form))
        # Shown in this answer, and never again: so no redirection.
        not_served = [name for name in key.models if name not in self._context.names()]
        return self.keys_page(request, session, secret=secret, made=key, not_served=not_served)

    def revoke_key(self, request: Request, session: Session, form: Form) -> Response:
        self._store.keys.revoke(request.path_params["key_id"], session.account.id)
        return RedirectResponse("/keys", 303)

    def usage_page(self, request: Request, session: Session, /, **told: Any) -> Response:
        report = usage_report(self._store.database, request, session.account.id)
        money = self.credit_of(session.account)
        return self._pages.render("usage.html", request, session=session, **report, **money)

    def usage_csv(self, request: Request, session: Session, /, **told: Any) -> Response:
        since, until, days = _period(request)
        rows = usage(self._store.database, COLUMNS, session.account.id, since, until)
        name = f'attachment; filename="rerankd-usage-{days}-days.csv"'
        return self._pages.guard(
            Response(as_csv(rows, COLUMNS), 200, {"content-disposition": name}, "text/csv; charset=utf-8")
        )

    def credit_of(self, account: Account) -> dict[str, Any]:
        """What is left of an account's money and free tokens."""
        card = self._context.prices.current()
        quotas = [(price, self._store.ledger.quota(account.id, price)) for price in card.prices if price.free_tokens]
        return {"account": account, "currency": card.currency, "quotas": quotas, "limits": self._limits_of(account)}

    def _limits_of(self, account: Account) -> CallLimits:
        """Those in force: the account's own, else the model's, else the server's."""
        names, settings = self._context.names(), self._context.settings
        of_model = self._context.prices.current().of(names).limits if names else CallLimits()
        sources = (account.limits, of_model, settings)
        found = {name: [getattr(source, name) for source in sources] for name in LIMITS}
        return CallLimits(**{name: next(filter(None, values), None) for name, values in found.items()})


def usage_report(database: Database, request: Request, account_id: int | None) -> dict[str, Any]:
    """The usage of a period, for the template of its charts and tables."""
    since, until, days = _period(request)

    def by(what: By) -> list[UsageRow]:
        return usage(database, (what,), account_id, since, until)

    daily = {row.day: row for row in by("day")}
    dates = [(since + timedelta(days=number)).date() for number in range(days)]
    return {
        "days": days,
        "periods": PERIODS,
        "daily": daily,
        "tokens_chart": bars([(f"{date}", daily[date].tokens if date in daily else 0) for date in dates]),
        "by_key": by("key"),
        "by_model": by("model"),
        "by_account": by("account") if account_id is None else [],
        "total": sum(row.tokens for row in daily.values()),
    }


def read_limits(form: Form) -> CallLimits:
    """The fields of a form about limits. Raises InvalidRequest."""
    return CallLimits(**{name: form.number(name) for name in LIMITS})


def _period(request: Request) -> tuple[datetime, datetime, int]:
    """(the first day's begin, the next day's begin, days) in UTC."""
    asked = request.query_params.get("days", "")
    days = int(asked) if asked in map(str, PERIODS) else 30
    until = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(), UTC)
    return until - timedelta(days=days), until, days


def _end_of(date: str) -> datetime:
    """The end of a day, in UTC. Raises InvalidRequest."""
    try:
        return datetime.combine(datetime.fromisoformat(date).date(), time(), UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"Expires: “{date[:40]}” is not a date.") from None
