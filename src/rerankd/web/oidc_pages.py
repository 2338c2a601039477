"""Signing in at the OpenID provider: there, back, and, where it takes a password or a code, the confirmation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hmac import compare_digest
from typing import ClassVar
from urllib.parse import urlencode

from anyio import CapacityLimiter
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.identities import Confirmation
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest
from rerankd.oidc.attempt import Attempt
from rerankd.oidc.errors import ProviderError, ProviderUnreachable
from rerankd.oidc.id_token import Identity
from rerankd.oidc.provider import Provider
from rerankd.web.anonymous import LINKED, AnonymousPage, AnonymousPages, address_of, after_sign_in
from rerankd.web.context import WebContext
from rerankd.web.cookies import ATTEMPT_COOKIE, CONFIRMATION_COOKIE, delete_short_cookie, set_short_cookie, short_cookie
from rerankd.web.forms import Form
from rerankd.web.guards import Guards
from rerankd.web.sign_in_pages import SignInPage
from rerankd.web.throttle import Throttle

logger = logging.getLogger(__name__)

LINKING = "/account?link"
"""In place of a page after the sign-in: the account page began the attempt."""

ASKED_AT_ONCE = 4
"""Sign-ins that may wait for the provider. A provider that does not answer must not hold the threads of other pages."""


class _Denied(Exception):
    """The sign-in fails. The message is for the person."""

    def __init__(self, problem: str, status: int = 403) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True, slots=True)
class ConfirmPage(AnonymousPage):
    """`/sign-in/confirm`."""

    template: ClassVar[str] = "confirm.html"
    asked: Confirmation


class OidcPages:
    """`/sign-in/oidc`, `/sign-in/oidc/callback`, `/sign-in/confirm` and `/sign-out/oidc`.

    Args:
        sign_ins: counts wrong passwords, here and wherever else a password is asked.
    """

    def __init__(
        self,
        context: WebContext,
        provider: Provider,
        store: Store,
        guards: Guards,
        anonymous: AnonymousPages,
        sign_ins: Throttle,
    ) -> None:
        self._context, self._settings = context, context.settings
        self._name = context.settings.provider_name
        self._provider = provider
        self._store = store
        self._guards = guards
        self._anonymous = anonymous
        self._sign_ins = sign_ins

    def add_to(self, router: APIRouter) -> None:
        waiting = CapacityLimiter(ASKED_AT_ONCE)
        self._guards.anonymous_page(router, "/sign-in/oidc", self.begin, waiting)
        self._guards.anonymous_page(router, "/sign-in/oidc/callback", self.end, waiting)
        self._guards.anonymous_page(router, "/sign-out/oidc", self.sign_out, waiting)
        self._guards.anonymous_page(router, "/sign-in/confirm", self.confirm_page)
        self._guards.anonymous_form(router, "/sign-in/confirm", self.confirm)

    def begin(self, request: Request) -> Response:
        """Leads to the provider. The browser keeps what the answer is compared with."""
        after, session = after_sign_in(request.query_params.get("next", "")), self._guards.session(request)
        if session is not None:
            if not compare_digest(request.query_params.get("link", "").encode(), session.link_token.encode()):
                return RedirectResponse(after, 303)
            after = LINKING
        attempt = Attempt.new()
        try:
            address = self._provider.address_for(attempt, self._redirect_uri(request))
        except ProviderError as error:
            return self._failed(request, self._explained(error))
        response = RedirectResponse(address, 303)
        return set_short_cookie(response, request, ATTEMPT_COOKIE, f"{attempt.secret}{after}")

    def end(self, request: Request) -> Response:
        """The provider leads the browser back to here."""
        kept = short_cookie(request, ATTEMPT_COOKIE)
        secret, slash, path = kept.partition("/")
        try:
            identity = self._identity(request, Attempt.read(secret))
            if slash + path == LINKING:
                response = self._link_to_own(request, identity)
            else:
                response = self._let_in(request, identity, after_sign_in(slash + path))
        except _Denied as denied:
            response = self._failed(request, denied)
        except ProviderError as error:
            response = self._failed(request, self._explained(error))
        return delete_short_cookie(response, request, ATTEMPT_COOKIE)

    def sign_out(self, request: Request) -> Response:
        """Leads to the provider's own sign-out. The session here has ended before."""
        try:
            address = self._provider.sign_out_address(f"{self._context.address(request)}/sign-in")
        except ProviderError as error:
            return self._failed(request, self._explained(error))
        if not address:
            return self._failed(
                request, _Denied(f"{self._name} does not let other sites sign you out: do it there.", 404)
            )
        return RedirectResponse(address, 303)

    def confirm_page(self, request: Request) -> Response:
        return self._confirm_page(request, Form({"next": [after_sign_in(request.query_params.get("next", ""))]}))

    def confirm(self, request: Request, form: Form) -> Response:
        token = short_cookie(request, CONFIRMATION_COOKIE)
        asked = self._store.identities.asked(token)
        if asked is None:
            return RedirectResponse("/sign-in", 303)
        email, address = asked.account.email, address_of(request)
        if wait := self._sign_ins.attempt(email, address):
            return self._anonymous.too_many(SignInPage, request, Form(), wait)
        if not self._is_owner(asked, form):
            return self._confirm_page(request, form, "The password or the code is wrong.", 403)
        self._sign_ins.succeeded(email, address)
        try:
            account_id = self._store.identities.confirm(token)
        except InvalidRequest as error:
            return self._failed(request, _Denied(str(error)))
        response = self._anonymous.open_session(request, account_id, after_sign_in(form["next"]))
        return delete_short_cookie(response, request, CONFIRMATION_COOKIE)

    def _identity(self, request: Request, attempt: Attempt | None) -> Identity:
        """Who the provider says this is. Raises _Denied, ProviderError."""
        answer = request.query_params
        if attempt is None or not attempt.is_answered_by(answer.get("state", "")):
            raise _Denied("This sign-in was not begun in this browser, or took too long. Try again.", 400)
        if "error" in answer:
            logger.warning("The sign-in provider answers %r", answer["error"][:100])
            raise _Denied(f"You cancelled the sign-in at {self._name}, or were not let in there.")
        code = answer.get("code", "")
        identity = self._provider.identity(code, attempt, self._redirect_uri(request))
        domains = self._settings.oidc_domain
        if domains and not (self._has_email(identity) and identity.email.rpartition("@")[2] in domains):
            raise _Denied("This server lets in people with other e-mail addresses only.")
        return identity

    def _let_in(self, request: Request, identity: Identity, after: str) -> Response:
        """Opens a session, or asks for what is missing. Raises _Denied."""
        account = self._store.identities.find(identity.issuer, identity.subject)
        if account is not None:
            return self._sign_in(request, self._enabled(account), after)
        if not self._has_email(identity):
            raise _Denied(f"{self._name} has not verified your e-mail address. Verify it there, and try again.")
        account = self._store.accounts.by_email(identity.email)
        if account is None:
            return self._anonymous.open_session(request, self._create_account(identity), after)
        if self._settings.oidc_trust_email == "no":
            return self._ask_to_link(request, self._enabled(account), identity, after)
        self._link(self._enabled(account), identity)
        return self._sign_in(request, account, after)

    def _link_to_own(self, request: Request, identity: Identity) -> Response:
        """Has a signed-in person confirm, by password and code, who signs in to the account from then on."""
        session = self._guards.session(request)
        if session is None:
            raise _Denied("You are signed out. Sign in, and link again.")
        if self._store.identities.find(identity.issuer, identity.subject) is not None:
            raise _Denied("This person signs in to an account already. Unlink it there first.")
        return self._ask_to_link(request, session.account, identity, LINKED)

    def _sign_in(self, request: Request, account: Account, after: str) -> Response:
        """A second factor is asked for here, too: it belongs to the account, however its owner signs in."""
        if account.has_second_factor:
            return self._ask(request, self._store.identities.ask(account.id), after)
        return self._anonymous.open_session(request, account.id, after)

    def _ask_to_link(self, request: Request, account: Account, identity: Identity, after: str) -> Response:
        if not account.has_password:
            raise _Denied(
                f"{account.email} has an account here that has no password. "
                "Ask an administrator for a link that sets one, and sign in again."
            )
        token = self._store.identities.ask(account.id, identity.issuer, identity.subject)
        return self._ask(request, token, after)

    def _ask(self, request: Request, token: str, after: str) -> Response:
        response = RedirectResponse(f"/sign-in/confirm?{urlencode({'next': after})}", 303)
        return set_short_cookie(response, request, CONFIRMATION_COOKIE, token)

    def _is_owner(self, asked: Confirmation, form: Form) -> bool:
        """A code is used up only beside the right password."""
        account = asked.account
        if asked.links and self._store.accounts.check_password(account.email, form["password"]) is None:
            return False
        return self._store.second_factors.check(account.id, form["code"])

    def _create_account(self, identity: Identity) -> int:
        if not self._settings.oidc_sign_up:
            raise _Denied(f"{identity.email} has no account here. Ask an administrator of this server.")
        name = identity.name if identity.name.isprintable() else ""
        try:
            created = self._store.identities.create_account(
                identity.issuer, identity.subject, identity.email, name[:200]
            )
        except InvalidRequest as error:
            raise _Denied(str(error)) from None
        return created.id

    def _link(self, account: Account, identity: Identity) -> None:
        try:
            self._store.identities.link(account.id, identity.issuer, identity.subject)
        except InvalidRequest as error:
            raise _Denied(str(error)) from None

    def _enabled(self, account: Account) -> Account:
        if not self._store.accounts.may_sign_in(account.id):
            raise _Denied("This account is disabled. Ask an administrator of this server.")
        return account

    def _has_email(self, identity: Identity) -> bool:
        """Whether the e-mail address is known to be this person's."""
        try:
            read_email(identity.email)
        except InvalidRequest:
            return False
        return identity.is_verified or self._settings.oidc_trust_email == "all"

    def _confirm_page(self, request: Request, form: Form, problem: str = "", status: int = 200) -> Response:
        asked = self._store.identities.asked(short_cookie(request, CONFIRMATION_COOKIE))
        if asked is None:
            return RedirectResponse("/sign-in", 303)

        def page(csrf: str, typed: Form, problem: str) -> ConfirmPage:
            return ConfirmPage(csrf, typed, problem, asked)

        return self._anonymous.show(page, request, form, problem, status)

    def _explained(self, error: ProviderError) -> _Denied:
        """What the person learns; the log has the cause."""
        logger.warning("A sign-in at %s failed: %s", self._provider.issuer, error)
        if isinstance(error, ProviderUnreachable):
            problem = f"{self._name} does not answer now. Try again later, or sign in with your password."
            return _Denied(problem, 503)
        return _Denied(f"The sign-in at {self._name} failed. Try again, or tell an administrator of this server.")

    def _failed(self, request: Request, denied: _Denied) -> Response:
        return self._anonymous.show(SignInPage, request, Form(), str(denied), denied.status)

    def _redirect_uri(self, request: Request) -> str:
        return f"{self._context.address(request)}/sign-in/oidc/callback"
