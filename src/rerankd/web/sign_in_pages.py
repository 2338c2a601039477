"""Signing in and out, and signing up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.admission.identity import network_of
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.errors import InvalidRequest
from rerankd.web.anonymous import AnonymousPage, AnonymousPages, address_of, after_sign_in
from rerankd.web.context import WebContext
from rerankd.web.cookies import delete_session
from rerankd.web.forms import Form, check_repeated
from rerankd.web.guards import Guards, PageHandler
from rerankd.web.throttle import Throttle

MAX_EMAIL = 254


@dataclass(frozen=True, slots=True)
class SignInPage(AnonymousPage):
    """`/sign-in`."""

    template: ClassVar[str] = "sign_in.html"


@dataclass(frozen=True, slots=True)
class SignUpPage(AnonymousPage):
    """`/sign-up`."""

    template: ClassVar[str] = "sign_up.html"


class SignInPages:
    """`/sign-in`, `/sign-up` and `/sign-out`.

    Args:
        sign_ins: counts wrong passwords, here and wherever else a password is asked.
    """

    def __init__(
        self, context: WebContext, store: Store, guards: Guards, anonymous: AnonymousPages, sign_ins: Throttle
    ) -> None:
        self._sign_up = context.settings.sign_up
        self._by_mail = context.mailer is not None and context.settings.sign_up == "open"
        self._store = store
        self._guards = guards
        self._anonymous = anonymous
        self._sign_ins, self._sign_ups = sign_ins, Throttle()

    def add_to(self, router: APIRouter, account_page: PageHandler) -> None:
        """account_page: shown where a sign-out is refused."""
        router.add_api_route("/sign-in", self.sign_in_page, methods=["GET"], response_model=None)
        self._guards.anonymous_form(router, "/sign-in", self.sign_in)
        self._guards.form(router, "/sign-out", self.sign_out, account_page, "viewer")
        if self._sign_up != "off":
            router.add_api_route("/sign-up", self.sign_up_page, methods=["GET"], response_model=None)
            self._guards.anonymous_form(router, "/sign-up", self.sign_up)

    def sign_in_page(self, request: Request) -> Response:
        if self._guards.session_or_none(request):
            return RedirectResponse(after_sign_in(request.query_params.get("next", "")), 303)
        asked = request.query_params
        done = {name: ["yes"] for name in ("reset", "deleted", "out") if name in asked}
        return self._anonymous.show(SignInPage, request, Form({"next": [asked.get("next", "")], **done}))

    def sign_in(self, request: Request, form: Form) -> Response:
        email, address = form["email"].strip().lower()[:MAX_EMAIL], address_of(request)
        if wait := self._sign_ins.attempt(email, address):
            return self._anonymous.too_many(SignInPage, request, form, wait)
        account = self._store.accounts.check_password(email, form["password"])
        if account is None or not self._store.second_factors.check(account.id, form["code"]):
            # The same for a wrong code: who guesses does not learn that the password is right.
            problem = "The e-mail address, the password or the code is wrong."
            return self._anonymous.show(SignInPage, request, form, problem, 403)
        self._sign_ins.succeeded(email, address)
        return self._anonymous.open_session(request, account.id, after_sign_in(form["next"]))

    def sign_out(self, request: Request, session: Session, form: Form) -> Response:
        self._store.sessions.close(request.cookies[SESSION_COOKIE])
        # Who signs in at a provider may want to sign out there, too
        path = "/sign-in?out" if self._store.identities.of_account(session.account.id) else "/sign-in"
        return delete_session(RedirectResponse(path, 303), request)

    def sign_up_page(self, request: Request) -> Response:
        return self._anonymous.show(SignUpPage, request, Form())

    def sign_up(self, request: Request, form: Form) -> Response:
        # Every attempt counts: those that succeed create accounts, the others may guess invitations.
        address = address_of(request)
        if wait := self._sign_ups.attempt(network_of(address), address):
            return self._anonymous.too_many(SignUpPage, request, form, wait)
        try:
            account_id = self._create_account(form)
        except InvalidRequest as error:
            return self._anonymous.show(SignUpPage, request, form, str(error), 400)
        return self._anonymous.open_session(request, account_id, "/keys")

    def _create_account(self, form: Form) -> int:
        check_repeated(form)
        email, name, password = form["email"], form["name"], form["new"]
        code = form["invite"].strip()
        if self._by_mail and code and not self._store.invites.find(code):
            return self._store.links.sign_up(code, email, name, password).id
        if self._by_mail or self._sign_up == "invite" or code:
            return self._store.invites.use(form["invite"].strip(), email, name, password).id
        return self._store.accounts.create(email, name, password, by="owner").id
