"""The page of one's own account: its password, second factor, e-mail address and deletion, and who signs in to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from fastapi import APIRouter
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.deletion import delete_account
from rerankd.accounts.identities import Linked
from rerankd.accounts.second_factor import SECRET, new_secret
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest
from rerankd.web.anonymous import AnonymousPages, address_of
from rerankd.web.cookies import delete_session, end_show, show_once, to_show
from rerankd.web.formatting import duration
from rerankd.web.forms import NO_REFUSAL, Form, Refusal, check_repeated
from rerankd.web.guards import Access, FormHandler, Guards
from rerankd.web.pages import Page, Pages
from rerankd.web.qr import qr_svg
from rerankd.web.throttle import Throttle

DONE = {
    "": "The password is changed. You are signed out everywhere else.",
    "on": "The second factor is on. You are signed out everywhere else.",
    "off": "The second factor is off.",
    "codes": "The recovery codes are new; the old ones no longer work.",
    "unlinked": "The provider is unlinked: only the password signs in.",
    "linked": "The provider is linked: you can sign in there, too.",
    "email": "The e-mail address is changed.",
}


@dataclass(frozen=True, slots=True)
class AccountPage(Page):
    """`/account`.

    Attributes:
        done: a message after a change.
        secret: of a second factor that is not yet on. app_link, qr: the same as a link for an authenticator app.
        recovery_codes: just made. num_codes: how many were not used yet.
        linked: who signs in to the account at a provider.
    """

    template: ClassVar[str] = "account.html"
    problem: str
    done: str
    secret: str
    app_link: str
    qr: Markup
    recovery_codes: Sequence[str]
    num_codes: int
    linked: Sequence[Linked]


class OwnAccountPages:
    """`/account` and its forms; `EmailPages` has those for another e-mail address.

    Args:
        sign_ins: counts wrong passwords, here and wherever else a password is asked.
    """

    def __init__(
        self, store: Store, guards: Guards, pages: Pages, anonymous: AnonymousPages, sign_ins: Throttle
    ) -> None:
        self._store = store
        self._guards = guards
        self._pages = pages
        self._anonymous = anonymous
        self._sign_ins = sign_ins

    def add_to(self, router: APIRouter) -> None:
        self._guards.page(router, "/account", self.account_page)
        forms: dict[str, FormHandler] = {
            "password": self.change_password,
            "second-factor/on": self.turn_second_factor_on,
            "second-factor/off": self.turn_second_factor_off,
            "second-factor/codes": self.renew_recovery_codes,
            "unlink": self.unlink,
            "delete": self.delete,
        }
        for name, handler in forms.items():
            access: Access = "owner" if name == "delete" else "viewer"
            path = f"/account/{name}"
            self._guards.form(router, path, handler, self.account_page, access, self._guards.hashing)

    def account_page(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        typed, account = refusal.typed["secret"], session.account
        secret = typed if SECRET.fullmatch(typed) else new_secret()
        link = f"otpauth://totp/{quote(f'rerankd:{account.email}')}?secret={secret}&issuer=rerankd"
        page = AccountPage(
            problem=refusal.problem,
            done=DONE.get(request.query_params.get("done", "-"), ""),
            secret=secret,
            app_link=link,
            qr=qr_svg(link, "QR code of the secret below"),
            recovery_codes=to_show(request, "/account").split(),
            num_codes=self._store.second_factors.recovery_codes_left(account.id),
            linked=self._store.identities.of_account(account.id),
        )
        response = self._pages.render(page, request, session, refusal.status)
        return end_show(response, request, "/account")

    def turn_second_factor_on(self, request: Request, session: Session, form: Form) -> Response:
        self.check_own_password(request, session, form)
        codes = self._store.second_factors.turn_on(session.account.id, form["secret"], form["code"])
        response = self._anonymous.open_session(request, session.account.id, "/account?done=on")
        return show_once(response, request, "/account", " ".join(codes))

    def turn_second_factor_off(self, request: Request, session: Session, form: Form) -> Response:
        self.check_own_password(request, session, form)
        self._check_own_code(session, form)
        self._store.second_factors.turn_off(session.account.id, "owner")
        return RedirectResponse("/account?done=off", 303)

    def renew_recovery_codes(self, request: Request, session: Session, form: Form) -> Response:
        self.check_own_password(request, session, form)
        self._check_own_code(session, form)
        codes = self._store.second_factors.new_recovery_codes(session.account.id)
        response = RedirectResponse("/account?done=codes", 303)
        return show_once(response, request, "/account", " ".join(codes))

    def change_password(self, request: Request, session: Session, form: Form) -> Response:
        self.check_own_password(request, session, form)
        check_repeated(form)
        self._store.accounts.set_password(session.account.id, form["new"], by="owner")
        return self._anonymous.open_session(request, session.account.id, "/account?done")

    def unlink(self, request: Request, session: Session, form: Form) -> Response:
        self.check_own_password(request, session, form)
        self._store.identities.unlink(session.account.id, "owner")
        return RedirectResponse("/account?done=unlinked", 303)

    def delete(self, request: Request, session: Session, form: Form) -> Response:
        if session.payer.id != session.account.id:
            raise InvalidRequest("This is not your own account: switch to that one first.")
        self.check_own_password(request, session, form)
        self._check_own_code(session, form)
        delete_account(self._store.database, session.account.id, "owner")
        return delete_session(RedirectResponse("/sign-in?deleted", 303), request)

    def check_own_password(self, request: Request, session: Session, form: Form) -> None:
        """Raises InvalidRequest."""
        email, address = session.account.email, address_of(request)
        if wait := self._sign_ins.attempt(email, address):
            raise InvalidRequest(f"Too many wrong passwords. Try again in {duration(wait)}.")
        if self._store.accounts.check_password(email, form["password"]) is None:
            raise InvalidRequest("The current password is wrong.")
        self._sign_ins.succeeded(email, address)

    def _check_own_code(self, session: Session, form: Form) -> None:
        """Raises InvalidRequest."""
        if not self._store.second_factors.check(session.account.id, form["code"]):
            raise InvalidRequest("The code is wrong, or was used already: wait for the next one.")
