"""Signing in, signing up, and changing the password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.second_factor import SECRET, new_secret
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.admission.identity import network_of
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.errors import InvalidRequest
from rerankd.web.context import WebContext
from rerankd.web.cookies import delete_session, form_token, set_form_token, set_session
from rerankd.web.formatting import duration
from rerankd.web.forms import NO_REFUSAL, Form, Refusal
from rerankd.web.guards import FormHandler, Guards
from rerankd.web.pages import Page, Pages
from rerankd.web.throttle import Throttle

AFTER_SIGN_IN = ("/", "/keys", "/usage", "/statement", "/calls", "/account", "/admin", "/admin/server")
"""Where a sign-in may redirect to: never to another site."""

MAX_EMAIL = 254

DONE = {
    "": "The password is changed. You are signed out everywhere else.",
    "on": "The second factor is on. You are signed out everywhere else.",
    "off": "The second factor is off.",
}


@dataclass(frozen=True, slots=True)
class AnonymousPage(Page):
    """A page with a form for visitors without a session."""

    csrf: str
    typed: Form
    problem: str


@dataclass(frozen=True, slots=True)
class SignInPage(AnonymousPage):
    """`/sign-in`."""

    template: ClassVar[str] = "sign_in.html"


@dataclass(frozen=True, slots=True)
class SignUpPage(AnonymousPage):
    """`/sign-up`."""

    template: ClassVar[str] = "sign_up.html"


@dataclass(frozen=True, slots=True)
class AccountPage(Page):
    """`/account`.

    Attributes:
        done: a message after a change.
        secret: of a second factor that is not yet on. app_link: the same as a link for an authenticator app.
    """

    template: ClassVar[str] = "account.html"
    problem: str
    done: str
    secret: str
    app_link: str


class SignInPages:
    """`/sign-in`, `/sign-up`, `/sign-out` and `/account`."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages) -> None:
        self._sign_up = context.settings.sign_up
        self._by_mail = context.mailer is not None and context.settings.sign_up == "open"
        self._store = store
        self._guards = guards
        self._pages = pages
        self._sign_ins, self._sign_ups = Throttle(), Throttle()

    def add_to(self, router: APIRouter) -> None:
        router.add_api_route("/sign-in", self.sign_in_page, methods=["GET"], response_model=None)
        self._guards.anonymous_form(router, "/sign-in", self.sign_in)
        self._guards.form(router, "/sign-out", self.sign_out, self.account_page)
        if self._sign_up != "off":
            router.add_api_route("/sign-up", self.sign_up_page, methods=["GET"], response_model=None)
            self._guards.anonymous_form(router, "/sign-up", self.sign_up)
        self._guards.page(router, "/account", self.account_page)
        forms: dict[str, FormHandler] = {
            "password": self.change_password,
            "second-factor/on": self.turn_second_factor_on,
            "second-factor/off": self.turn_second_factor_off,
        }
        for name, handler in forms.items():
            path = f"/account/{name}"
            self._guards.form(router, path, handler, self.account_page, limiter=self._guards.hashing)

    def sign_in_page(self, request: Request) -> Response:
        if self._guards.session_or_none(request):
            return RedirectResponse(_after_sign_in(request.query_params.get("next", "")), 303)
        asked = request.query_params
        done = {"reset": ["yes"]} if "reset" in asked else {}
        return self._show(SignInPage, request, Form({"next": [asked.get("next", "")], **done}))

    def sign_in(self, request: Request, form: Form) -> Response:
        email, address = form["email"].strip().lower()[:MAX_EMAIL], address_of(request)
        if wait := self._sign_ins.attempt(email, address):
            return self._too_many(SignInPage, request, form, wait)
        account = self._store.accounts.check_password(email, form["password"])
        if account is None or not self._store.second_factors.check(account.id, form["code"]):
            # The same for a wrong code: who guesses does not learn that the password is right.
            problem = "The e-mail address, the password or the code is wrong."
            return self._show(SignInPage, request, form, problem, 403)
        self._sign_ins.succeeded(email, address)
        return self._open_session(request, account.id, _after_sign_in(form["next"]))

    def sign_out(self, request: Request, session: Session, form: Form) -> Response:
        self._store.sessions.close(request.cookies[SESSION_COOKIE])
        return delete_session(RedirectResponse("/sign-in", 303), request)

    def sign_up_page(self, request: Request) -> Response:
        return self._show(SignUpPage, request, Form())

    def sign_up(self, request: Request, form: Form) -> Response:
        # Every attempt counts: those that succeed create accounts, the others may guess invitations.
        address = address_of(request)
        if wait := self._sign_ups.attempt(network_of(address), address):
            return self._too_many(SignUpPage, request, form, wait)
        try:
            account_id = self._create_account(form)
        except InvalidRequest as error:
            return self._show(SignUpPage, request, form, str(error), 400)
        return self._open_session(request, account_id, "/keys")

    def account_page(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        typed = refusal.typed["secret"]
        secret = typed if SECRET.fullmatch(typed) else new_secret()
        label = quote(f"rerankd:{session.account.email}")
        page = AccountPage(
            problem=refusal.problem,
            done=DONE.get(request.query_params.get("done", "-"), ""),
            secret=secret,
            app_link=f"otpauth://totp/{label}?secret={secret}&issuer=rerankd",
        )
        return self._pages.render(page, request, session, refusal.status)

    def turn_second_factor_on(self, request: Request, session: Session, form: Form) -> Response:
        self._check_own_password(request, session, form)
        self._store.second_factors.turn_on(session.account.id, form["secret"], form["code"])
        return self._open_session(request, session.account.id, "/account?done=on")

    def turn_second_factor_off(self, request: Request, session: Session, form: Form) -> Response:
        self._check_own_password(request, session, form)
        if not self._store.second_factors.check(session.account.id, form["code"]):
            raise InvalidRequest("The code is wrong, or was used already: wait for the next one.")
        self._store.second_factors.turn_off(session.account.id, "owner")
        return RedirectResponse("/account?done=off", 303)

    def change_password(self, request: Request, session: Session, form: Form) -> Response:
        self._check_own_password(request, session, form)
        check_repeated(form)
        self._store.accounts.set_password(session.account.id, form["new"], by="owner")
        return self._open_session(request, session.account.id, "/account?done")

    def _check_own_password(self, request: Request, session: Session, form: Form) -> None:
        """Raises InvalidRequest."""
        email, address = session.account.email, address_of(request)
        if wait := self._sign_ins.attempt(email, address):
            raise InvalidRequest(f"Too many wrong passwords. Try again in {duration(wait)}.")
        if self._store.accounts.check_password(email, form["password"]) is None:
            raise InvalidRequest("The current password is wrong.")
        self._sign_ins.succeeded(email, address)

    def _create_account(self, form: Form) -> int:
        check_repeated(form)
        email, name, password = form["email"], form["name"], form["new"]
        code = form["invite"].strip()
        if self._by_mail and code and not self._store.invites.find(code):
            return self._store.links.sign_up(code, email, name, password).id
        if self._by_mail or self._sign_up == "invite" or code:
            return self._store.invites.use(form["invite"].strip(), email, name, password).id
        return self._store.accounts.create(email, name, password, by="owner").id

    def _open_session(self, request: Request, account_id: int, path: str) -> Response:
        if before := request.cookies.get(SESSION_COOKIE):
            self._store.sessions.close(before)
        return set_session(RedirectResponse(path, 303), request, self._store.sessions.open(account_id))

    def _too_many(self, page: type[AnonymousPage], request: Request, form: Form, wait: int) -> Response:
        problem = f"Too many failed attempts. Try again in {duration(wait)}."
        response = self._show(page, request, form, problem, 429)
        response.headers["retry-after"] = str(wait)
        return response

    def _show(
        self, page: type[AnonymousPage], request: Request, form: Form, problem: str = "", status: int = 200
    ) -> Response:
        token = form_token(request)
        response = self._pages.render(page(token, form, problem), request, status=status)
        return set_form_token(response, request, token)


def check_repeated(form: Form) -> None:
    """Raises InvalidRequest."""
    if form["new"] != form["again"]:
        raise InvalidRequest("The two passwords are not the same.")


def _after_sign_in(path: str) -> str:
    return path if path in AFTER_SIGN_IN else "/"


def address_of(request: Request) -> str:
    """The visitor's network address."""
    return request.client.host if request.client else ""
