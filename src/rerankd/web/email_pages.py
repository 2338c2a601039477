"""Another e-mail address for one's own account: a link, mailed to it or made by an administrator, changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest
from rerankd.mail import Mailer
from rerankd.web.anonymous import address_of
from rerankd.web.context import WebContext
from rerankd.web.formatting import duration
from rerankd.web.forms import NO_REFUSAL, Form, Refusal
from rerankd.web.guards import Guards
from rerankd.web.own_account_pages import OwnAccountPages
from rerankd.web.pages import Page, Pages
from rerankd.web.recovery_pages import MailedPage
from rerankd.web.throttle import Throttle

NEW_ADDRESS = """\
Somebody, probably you, wants to use this e-mail address for an account on {site}.
Sign in to that account, and confirm the address here, within an hour:

{site}/account/email#{token}

If you did not ask, ignore this mail: nothing changes.
"""
HAS_ACCOUNT = """\
Somebody, probably you, wants to use this e-mail address for an account on {site}.
It has an account already, and an address can have only one. Nothing changes.
"""
CHANGED = """\
The e-mail address of your account on {site} is now {email}.

If you did not change it, tell an administrator of that server at once.
"""


@dataclass(frozen=True, slots=True)
class EmailPage(Page):
    """`/account/email`."""

    template: ClassVar[str] = "email.html"
    problem: str
    typed: Form


class EmailPages:
    """`/account/email`, where links lead, and `/account/email/ask` where mail can be sent."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages, own: OwnAccountPages) -> None:
        self._mailer = context.mailer
        self._site = context.settings.public_url or ""
        self._store = store
        self._guards = guards
        self._pages = pages
        self._own = own
        self._mails = Throttle()

    def add_to(self, router: APIRouter) -> None:
        self._guards.page(router, "/account/email", self.email_page)
        self._guards.form(router, "/account/email", self.change, self.email_page, "viewer")
        if self._mailer is not None:
            limiter = self._guards.hashing
            self._guards.form(router, "/account/email/ask", self.ask, self._own.account_page, "viewer", limiter)

    def email_page(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        return self._pages.render(EmailPage(refusal.problem, refusal.typed), request, session, refusal.status)

    def ask(self, request: Request, session: Session, form: Form) -> Response:
        """Mails a link to the new address: only who reads its mail can confirm it."""
        self._own.check_own_password(request, session, form)
        email = read_email(form["email"])
        # Every attempt counts: each may send a mail to somebody.
        if wait := self._mails.attempt(email, address_of(request)):
            raise InvalidRequest(f"Too many mails. Try again in {duration(wait)}.")
        mailer, account_id = self._mailer, session.account.id
        assert mailer is not None, "This is a bug: the form exists only with a mailer."
        mailer.later(lambda: self._send(mailer, account_id, email))
        return self._pages.render(MailedPage(email), request, session)

    def change(self, request: Request, session: Session, form: Form) -> Response:
        before = session.account.email
        email = self._store.links.change_email(form["code"].strip(), session.account.id)
        mailer = self._mailer
        if mailer is not None:
            text = CHANGED.format(site=self._site, email=email)
            mailer.later(lambda: mailer.send(before, "Your e-mail address was changed", text))
        return RedirectResponse("/account?done=email", 303)

    def _send(self, mailer: Mailer, account_id: int, email: str) -> None:
        """On the mail thread. The page does not tell who has an account; the mail does, to its owner."""
        try:
            token = self._store.links.for_email(account_id, email, by="owner")
        except InvalidRequest:
            mailer.send(email, "This address has an account", HAS_ACCOUNT.format(site=self._site))
        else:
            mailer.send(email, "Confirm your e-mail address", NEW_ADDRESS.format(site=self._site, token=token))
