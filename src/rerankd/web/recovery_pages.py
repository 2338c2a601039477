"""A forgotten password, and the confirmation of an e-mail address, by a one-time link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest
from rerankd.mail import Mailer
from rerankd.web.anonymous import AnonymousPage, AnonymousPages, address_of
from rerankd.web.context import WebContext
from rerankd.web.forms import Form, check_repeated
from rerankd.web.guards import Guards
from rerankd.web.pages import Page, Pages
from rerankd.web.throttle import Throttle

RESET = """\
Somebody, probably you, asked for a new password for your account on {site}.
Choose it here, within an hour:

{site}/reset#{token}

If you did not ask, ignore this mail: nothing changes.
"""
SIGN_UP = """\
Somebody, probably you, wants to create an account with this e-mail address on {site}.
Create it here, within an hour:

{site}/sign-up#{token}

If you did not ask, ignore this mail: no account is created.
"""
HAS_ACCOUNT = """\
Somebody, probably you, wants to create an account with this e-mail address on {site}.
You have one already: sign in at {site}/sign-in, or choose a new password at {site}/forgot.
"""

MailSender = Callable[[Mailer, str], None]
"""Looks up an address, and sends the mail."""


@dataclass(frozen=True, slots=True)
class ForgotPage(AnonymousPage):
    """`/forgot`."""

    template: ClassVar[str] = "forgot.html"


@dataclass(frozen=True, slots=True)
class ResetPage(AnonymousPage):
    """`/reset`."""

    template: ClassVar[str] = "reset.html"


@dataclass(frozen=True, slots=True)
class MailedPage(Page):
    """After a form that sends a mail. It is the same whether or not the address has an account."""

    template: ClassVar[str] = "mailed.html"
    email: str


class RecoveryPages:
    """`/forgot`, `/reset`, and `/sign-up/mail` where people create accounts themselves."""

    def __init__(
        self, context: WebContext, store: Store, guards: Guards, pages: Pages, anonymous: AnonymousPages
    ) -> None:
        self._settings = context.settings
        self._mailer = context.mailer
        self._store = store
        self._guards = guards
        self._pages = pages
        self._anonymous = anonymous
        self._mails, self._resets = Throttle(), Throttle()

    def add_to(self, router: APIRouter) -> None:
        router.add_api_route("/forgot", self.forgot_page, methods=["GET"], response_model=None)
        router.add_api_route("/reset", self.reset_page, methods=["GET"], response_model=None)
        self._guards.anonymous_form(router, "/reset", self.reset)
        if self._mailer is not None:
            self._guards.anonymous_form(router, "/forgot", self.forgot)
            if self._settings.sign_up == "open":
                self._guards.anonymous_form(router, "/sign-up/mail", self.mail_sign_up)

    def forgot_page(self, request: Request) -> Response:
        return self._anonymous.show(ForgotPage, request, Form())

    def forgot(self, request: Request, form: Form) -> Response:
        return self._mail(request, form, self._send_reset)

    def mail_sign_up(self, request: Request, form: Form) -> Response:
        return self._mail(request, form, self._send_sign_up)

    def reset_page(self, request: Request) -> Response:
        return self._anonymous.show(ResetPage, request, Form())

    def reset(self, request: Request, form: Form) -> Response:
        address = address_of(request)
        if wait := self._resets.attempt(address, address):
            return self._anonymous.too_many(ResetPage, request, form, wait)
        try:
            check_repeated(form)
            self._store.links.set_password(form["code"].strip(), form["new"])
        except InvalidRequest as error:
            return self._anonymous.show(ResetPage, request, form, str(error), 400)
        self._resets.succeeded(address, address)
        # Not signed in: a link in a mail does not replace the second factor.
        return RedirectResponse("/sign-in?reset", 303)

    def _mail(self, request: Request, form: Form, send: MailSender) -> Response:
        """Answers at once, and alike for every address; looks the account up on the mail thread."""
        try:
            email = read_email(form["email"])
        except InvalidRequest as error:
            return self._anonymous.show(ForgotPage, request, form, str(error), 400)
        # Every attempt counts: each may send a mail to somebody.
        if wait := self._mails.attempt(email, address_of(request)):
            return self._anonymous.too_many(ForgotPage, request, form, wait)
        mailer = self._mailer
        assert mailer is not None, "This is a bug: the form exists only with a mailer."
        mailer.later(lambda: send(mailer, email))
        return self._pages.render(MailedPage(email), request)

    def _send_reset(self, mailer: Mailer, email: str) -> None:
        account = self._store.accounts.by_email(email)
        if account is None:
            return
        try:
            token = self._store.links.for_password(account.id, by="owner")
        except InvalidRequest:  # disabled, or a member who was removed
            return
        mailer.send(email, "A new password", RESET.format(site=self._site, token=token))

    def _send_sign_up(self, mailer: Mailer, email: str) -> None:
        if self._store.accounts.by_email(email):
            mailer.send(email, "You have an account", HAS_ACCOUNT.format(site=self._site))
            return
        token = self._store.links.for_sign_up(email)
        mailer.send(email, "Create your account", SIGN_UP.format(site=self._site, token=token))

    @property
    def _site(self) -> str:
        """From the settings, never from the request: its Host header is the sender's choice."""
        return self._settings.public_url or ""
