"""Signing in, out and up, and one's own password."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.admission.identity import network_of
from rerankd.errors import InvalidRequest
from rerankd.web.context import WebContext
from rerankd.web.pages import Pages, root_of
from rerankd.web.throttle import Throttle
from rerankd.web.visitors import SESSION_COOKIE, Form, Visitors, form_token, keep_form_token, set_session
from rerankd.web.words import duration

AFTERWARDS = ("/", "/keys", "/usage", "/account", "/admin")
"""Where a sign-in may lead: never to another site."""

MAX_EMAIL = 254


class SignIn:
    """The pages `/sign-in`, `/sign-up` and `/account`."""

    def __init__(self, context: WebContext, store: Store, visitors: Visitors, pages: Pages) -> None:
        self._sign_up = context.settings.sign_up
        self._store = store
        self._visitors = visitors
        self._pages = pages
        self._sign_ins, self._sign_ups = Throttle(), Throttle()

    def add_to(self, router: APIRouter) -> None:
        router.add_api_route("/sign-in", self.sign_in_page, methods=["GET"], response_model=None)
        self._visitors.act_anonymously(router, "/sign-in", self.sign_in)
        self._visitors.act(router, "/sign-out", self.sign_out, self.account_page)
        if self._sign_up != "off":
            router.add_api_route("/sign-up", self.sign_up_page, methods=["GET"], response_model=None)
            self._visitors.act_anonymously(router, "/sign-up", self.sign_up)
        self._visitors.show(router, "/account", self.account_page)
        self._visitors.act(router, "/account/password", self.change_password, self.account_page, hashes=True)

    def sign_in_page(self, request: Request) -> Response:
        if self._visitors.glance(request):
            return RedirectResponse(_afterwards(request.query_params.get("next", "")), 303)
        return self._form("sign_in.html", request, Form({"next": [request.query_params.get("next", "")]}))

    def sign_in(self, request: Request, form: Form) -> Response:
        email, address = form["email"].strip().lower()[:MAX_EMAIL], _address(request)
        if wait := self._sign_ins.attempt(email, address):
            return self._too_many("sign_in.html", request, form, wait)
        account = self._store.accounts.check_password(email, form["password"])
        if account is None:
            problem = "The e-mail address or the password is wrong."
            return self._form("sign_in.html", request, form, status=403, problem=problem)
        self._sign_ins.succeeded(email, address)
        return self._enter(request, account.id, _afterwards(form["next"]))

    def sign_out(self, request: Request, session: Session, form: Form) -> Response:
        self._store.sessions.close(request.cookies[SESSION_COOKIE])
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(SESSION_COOKIE, path=root_of(request) or "/")
        return response

    def sign_up_page(self, request: Request) -> Response:
        return self._form("sign_up.html", request, Form())

    def sign_up(self, request: Request, form: Form) -> Response:
        # Every attempt counts: the right ones make accounts, the wrong ones guess invitations.
        address = _address(request)
        if wait := self._sign_ups.attempt(network_of(address), address):
            return self._too_many("sign_up.html", request, form, wait)
        try:
            account = self._make_account(form)
        except InvalidRequest as error:
            return self._form("sign_up.html", request, form, status=400, problem=str(error))
        return self._enter(request, account, "/keys")

    def account_page(self, request: Request, session: Session, /, **told: Any) -> Response:
        status, typed = told.pop("status", 200), told.pop("typed", Form())
        done = "The password is changed. You are signed out everywhere else." if "done" in request.query_params else ""
        values = {"problem": "", "done": done, **told}
        return self._pages.render("account.html", request, status, session=session, typed=typed, **values)

    def change_password(self, request: Request, session: Session, form: Form) -> Response:
        email, address = session.account.email, _address(request)
        if wait := self._sign_ins.attempt(email, address):
            raise InvalidRequest(f"Too many wrong passwords. Try again in {duration(wait)}.")
        if self._store.accounts.check_password(email, form["password"]) is None:
            raise InvalidRequest("The current password is wrong.")
        self._sign_ins.succeeded(email, address)
        _check_twice(form)
        self._store.accounts.set_password(session.account.id, form["new"])
        return self._enter(request, session.account.id, "/account?done")

    def _make_account(self, form: Form) -> int:
        _check_twice(form)
        email, name, password = form["email"], form["name"], form["new"]
        if self._sign_up == "invite" or form["invite"].strip():
            return self._store.invites.use(form["invite"].strip(), email, name, password).id
        return self._store.accounts.create(email, name, password).id

    def _enter(self, request: Request, account_id: int, path: str) -> Response:
        if before := request.cookies.get(SESSION_COOKIE):
            self._store.sessions.close(before)
        return set_session(RedirectResponse(path, 303), request, self._store.sessions.open(account_id))

    def _too_many(self, template: str, request: Request, form: Form, wait: int) -> Response:
        problem = f"Too many attempts that failed. Try again in {duration(wait)}."
        response = self._form(template, request, form, status=429, problem=problem)
        response.headers["retry-after"] = str(wait)
        return response

    def _form(self, template: str, request: Request, form: Form, status: int = 200, problem: str = "") -> Response:
        token = form_token(request)
        values = {"csrf": token, "typed": form, "problem": problem, "session": None}
        return keep_form_token(self._pages.render(template, request, status, **values), request, token)


def _check_twice(form: Form) -> None:
    if form["new"] != form["again"]:
        raise InvalidRequest("The two passwords are not the same.")


def _afterwards(path: str) -> str:
    return path if path in AFTERWARDS else "/"


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
