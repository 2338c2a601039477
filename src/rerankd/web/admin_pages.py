"""The pages for administrators: server health, accounts, invitations, credit, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from rerankd.accounts.accounts import Account, Role
from rerankd.accounts.keys import Key
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_amount
from rerankd.errors import InvalidRequest
from rerankd.web import formatting
from rerankd.web.account_pages import read_limits
from rerankd.web.context import WebContext
from rerankd.web.forms import NO_REFUSAL, Form, Refusal
from rerankd.web.guards import FormHandler, Guards
from rerankd.web.pages import Page, Pages, ProblemPage, root_of
from rerankd.web.upstream_pages import UpstreamForms, UpstreamRow, upstream_rows
from rerankd.web.usage_report import UsageReport, usage_report

DONE = {
    "made": "The account is created.",
    "credit": "The credit is added.",
    "limits": "The limits are set.",
    "disabled": "The account is disabled: its keys are refused, and it is signed out.",
    "enabled": "The account is enabled again.",
    "role": "The role is changed.",
    "password": "The password is set, and the account is signed out everywhere.",
    "revoked": "The key is revoked.",
}


@dataclass(frozen=True, slots=True)
class AdminPage(Page):
    """`/admin`.

    Attributes:
        tiles: figures by name.
        upstreams: none where no other server scores.
        invitation: the link of an invitation that was just created.
    """

    template: ClassVar[str] = "admin.html"
    usage: UsageReport
    accounts: Sequence[Account]
    tiles: Mapping[str, str]
    upstreams: Sequence[UpstreamRow]
    currency: str
    problem: str
    typed: Form
    invitation: str | None


@dataclass(frozen=True, slots=True)
class AdminAccountPage(Page):
    """`/admin/accounts/{id}`. is_own: the administrator's own account. done: a message after a change."""

    template: ClassVar[str] = "admin_account.html"
    usage: UsageReport
    account: Account
    keys: Sequence[Key]
    currency: str
    limits: Mapping[str, int | None]
    is_own: bool
    done: str
    problem: str
    typed: Form


class AdminPages:
    """`/admin` and `/admin/accounts/{id}`."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._guards = guards
        self._pages = pages

    def add_to(self, router: APIRouter) -> None:
        guards, one = self._guards, "/admin/accounts/{account_id:row}"
        guards.page(router, "/admin", self.overview, "admin")
        guards.page(router, "/admin/status", self.status, "admin")
        guards.page(router, one, self.account, "admin")
        guards.form(router, "/admin/accounts", self.create_account, self.overview, "admin", guards.hashing)
        if self._context.settings.sign_up != "off":
            guards.form(router, "/admin/invites", self.invite, self.overview, "admin")
        guards.form(router, f"{one}/password", self.set_password, self.account, "admin", guards.hashing)
        UpstreamForms(self._context.models, guards, self.overview).add_to(router)
        changes: dict[str, FormHandler] = {
            "credit": self.add_credit,
            "limits": self.set_limits,
            "state": self.set_state,
            "role": self.set_role,
            "keys/{key_id:row}/revoke": self.revoke_key,
        }
        for path, handler in changes.items():
            guards.form(router, f"{one}/{path}", handler, self.account, "admin")

    def overview(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        return self._overview(request, session, refusal, None)

    def status(self, request: Request, session: Session, _: Refusal = NO_REFUSAL, /) -> Response:
        """The figures of the overview, for its script."""
        return self._pages.guard(JSONResponse(self._tiles()))

    def account(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        account = self._find(request)
        if account is None:
            return self._pages.render(ProblemPage("There is no such account."), request, session, 404)
        page = AdminAccountPage(
            usage=usage_report(self._store.database, request, account.id),
            account=account,
            keys=self._store.keys.of_account(account.id),
            currency=self._context.prices.current().currency,
            limits=asdict(account.limits),
            is_own=account.id == session.account.id,
            done=DONE.get(request.query_params.get("done", ""), ""),
            problem=refusal.problem,
            typed=refusal.typed,
        )
        return self._pages.render(page, request, session, refusal.status)

    def create_account(self, request: Request, session: Session, form: Form) -> Response:
        password = form["password"] or None
        account = self._store.accounts.create(form["email"], form["name"], password, _role(form))
        return _back_to(account.id, "made")

    def invite(self, request: Request, session: Session, form: Form) -> Response:
        token = self._store.invites.create(session.account.id, form["email"].strip() or None)
        # After the #: browsers send it to no server, so it reaches no log and no other site.
        link = f"{request.url.scheme}://{request.url.netloc}{root_of(request)}/sign-up#{token}"
        return self._overview(request, session, NO_REFUSAL, link)

    def add_credit(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.ledger.add_credits(
            account.id, read_amount(form["amount"]), form["note"].strip()[:500], session.account.id
        )
        return _back_to(account.id, "credit")

    def set_limits(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.accounts.set_limits(account.id, read_limits(form))
        return _back_to(account.id, "limits")

    def set_state(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        if form["disabled"] not in ("yes", "no"):
            raise InvalidRequest("Disabled must be “yes” or “no”.")
        disabled = form["disabled"] == "yes"
        (self._store.accounts.disable if disabled else self._store.accounts.enable)(account.id)
        return _back_to(account.id, "disabled" if disabled else "enabled")

    def set_role(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        self._store.accounts.set_role(account.id, _role(form))
        return _back_to(account.id, "role")

    def set_password(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        self._store.accounts.set_password(account.id, form["password"])
        return _back_to(account.id, "password")

    def revoke_key(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.keys.revoke(request.path_params["key_id"], account.id)
        return _back_to(account.id, "revoked")

    def _overview(self, request: Request, session: Session, refusal: Refusal, invitation: str | None) -> Response:
        page = AdminPage(
            usage=usage_report(self._store.database, request, None),
            accounts=self._store.accounts.all(),
            tiles=self._tiles(),
            upstreams=upstream_rows(self._context.models),
            currency=self._context.prices.current().currency,
            problem=refusal.problem,
            typed=refusal.typed,
            invitation=invitation,
        )
        return self._pages.render(page, request, session, refusal.status)

    def _find(self, request: Request) -> Account | None:
        return self._store.accounts.by_id(request.path_params["account_id"])

    def _existing(self, request: Request) -> Account:
        if account := self._find(request):
            return account
        raise InvalidRequest("There is no such account.")

    def _other(self, request: Request, session: Session) -> Account:
        """Refuses one's own account, so that administrators cannot lock themselves out."""
        account = self._existing(request)
        if account.id == session.account.id:
            raise InvalidRequest("This is your own account: another administrator can do that.")
        return account

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


def _role(form: Form) -> Role:
    return "admin" if form["role"] == "admin" else "user"


def _back_to(account_id: int, done: str) -> Response:
    return RedirectResponse(f"/admin/accounts/{account_id}?done={done}", 303)
