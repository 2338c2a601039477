"""What administrators see and do: the server's health, accounts, invitations, credit, limits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from rerankd.accounts.accounts import Account, Role
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_amount
from rerankd.errors import InvalidRequest
from rerankd.web import words
from rerankd.web.context import WebContext
from rerankd.web.own_pages import LIMITS, read_limits, usage_report
from rerankd.web.pages import Pages, root_of
from rerankd.web.visitors import Form, Visitors

DONE = {
    "made": "The account is made.",
    "credit": "The credit is added.",
    "limits": "The limits are set.",
    "disabled": "The account is disabled: its keys do not work, and nobody is signed in to it.",
    "enabled": "The account is enabled again.",
    "role": "The role is changed.",
    "password": "The password is set, and the account is signed out everywhere.",
    "revoked": "The key is revoked.",
}


class AdminPages:
    """The pages `/admin` and `/admin/accounts/{id}`."""

    def __init__(self, context: WebContext, store: Store, visitors: Visitors, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._visitors = visitors
        self._pages = pages

    def add_to(self, router: APIRouter) -> None:
        show, act = self._visitors.show, self._visitors.act
        one = "/admin/accounts/{account_id:row}"
        show(router, "/admin", self.overview, role="admin")
        show(router, "/admin/status", self.status, role="admin")
        show(router, one, self.account_page, role="admin")
        act(router, "/admin/accounts", self.create_account, self.overview, role="admin", hashes=True)
        if self._context.settings.sign_up != "off":
            act(router, "/admin/invites", self.invite, self.overview, role="admin")
        act(router, f"{one}/credit", self.add_credit, self.account_page, role="admin")
        act(router, f"{one}/limits", self.set_limits, self.account_page, role="admin")
        act(router, f"{one}/state", self.set_state, self.account_page, role="admin")
        act(router, f"{one}/role", self.set_role, self.account_page, role="admin")
        act(router, f"{one}/password", self.set_password, self.account_page, role="admin", hashes=True)
        act(router, f"{one}/keys/{{key_id:row}}/revoke", self.revoke_key, self.account_page, role="admin")

    def overview(self, request: Request, session: Session, /, **told: Any) -> Response:
        values = {
            **usage_report(self._store.database, request, None),
            "accounts": self._store.accounts.all(),
            "tiles": self._tiles(),
            "currency": self._context.prices.current().currency,
            "typed": Form(),
            "problem": "",
            "invitation": None,
            **told,
        }
        return self._pages.render("admin.html", request, values.pop("status", 200), session=session, **values)

    def status(self, request: Request, session: Session, /, **told: Any) -> Response:
        """The figures of the overview, for its script."""
        return self._pages.guard(JSONResponse(self._tiles()))

    def account_page(self, request: Request, session: Session, /, **told: Any) -> Response:
        account = self._account(request)
        if account is None:
            problem = "There is no such account."
            return self._pages.render("problem.html", request, 404, session=session, problem=problem)
        values = {
            **usage_report(self._store.database, request, account.id),
            "account": account,
            "keys": self._store.keys.of_account(account.id),
            "currency": self._context.prices.current().currency,
            "limit_names": LIMITS,
            "limits": asdict(account.limits),
            "own": account.id == session.account.id,
            "done": DONE.get(request.query_params.get("done", ""), ""),
            "typed": Form(),
            "problem": "",
            **told,
        }
        return self._pages.render("admin_account.html", request, values.pop("status", 200), session=session, **values)

    def create_account(self, request: Request, session: Session, form: Form) -> Response:
        password = form["password"] or None
        account = self._store.accounts.create(form["email"], form["name"], password, _role(form))
        return _back_to(account.id, "made")

    def invite(self, request: Request, session: Session, form: Form) -> Response:
        token = self._store.invites.create(session.account.id, form["email"].strip() or None)
        # After the #: it reaches neither a server's log nor another site.
        link = f"{request.url.scheme}://{request.url.netloc}{root_of(request)}/sign-up#{token}"
        return self.overview(request, session, invitation=link)

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
            raise InvalidRequest("Whether the account is disabled is not said.")
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

    def _account(self, request: Request) -> Account | None:
        return self._store.accounts.by_id(request.path_params["account_id"])

    def _existing(self, request: Request) -> Account:
        if account := self._account(request):
            return account
        raise InvalidRequest("There is no such account.")

    def _other(self, request: Request, session: Session) -> Account:
        """So that the last administrator does not lock the door from outside."""
        account = self._existing(request)
        if account.id == session.account.id:
            raise InvalidRequest("This is your own account: another administrator can do that.")
        return account

    def _tiles(self) -> dict[str, str]:
        """How the server does, in words, by what is told."""
        served, status = self._context.models.default, self._context.status
        stage, share = served.progress
        health = f"ready: {served.scorer.info.name}" if served.ready else f"loading ({stage}, {words.share(share)})"
        if status is None:
            return {"Health": health}
        now = status()
        return {
            "Health": health,
            "Running": words.number(now.running),
            "Waiting": words.number(now.waiting),
            "Requests in the last minute": words.short(now.requests_per_minute),
            "Tokens per second": words.short(now.tokens_per_second),
            "Prefix cache hits": words.share(now.prefix_hit_share),
            "Score cache hits": words.share(now.score_hit_share),
            "Up for": words.duration(now.uptime_s),
        }


def _role(form: Form) -> Role:
    return "admin" if form["role"] == "admin" else "user"


def _back_to(account_id: int, done: str) -> Response:
    return RedirectResponse(f"/admin/accounts/{account_id}?done={done}", 303)
