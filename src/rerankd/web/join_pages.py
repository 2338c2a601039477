"""How a person comes into further accounts, and switches between them.

An invitation stands after the # of its link, so that it reaches no log. Who signs in on the way keeps it in a cookie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.memberships import Right
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.admission.identity import network_of
from rerankd.admission.session_calls import SESSION_COOKIE
from rerankd.errors import InvalidRequest
from rerankd.web.anonymous import KEPT_INVITATION, AnonymousPage, AnonymousPages, address_of, after_sign_in
from rerankd.web.cookies import (
    INVITE_COOKIE,
    delete_short_cookie,
    form_token,
    set_form_token,
    set_short_cookie,
    short_cookie,
)
from rerankd.web.forms import NO_REFUSAL, Form, Refusal, check_repeated
from rerankd.web.guards import Guards, PageHandler
from rerankd.web.pages import Page, Pages, root_of
from rerankd.web.throttle import Throttle

MAX_INVITE = 200
"""Characters that are kept of an invitation that somebody types."""


@dataclass(frozen=True, slots=True)
class JoinPage(AnonymousPage):
    """`/join` for visitors without a session, who become a new member."""

    template: ClassVar[str] = "join.html"


@dataclass(frozen=True, slots=True)
class ShownInvitation:
    """An invitation to an account. by, account: e-mail addresses. is_for_other: for another person's address only."""

    token: str
    by: str
    account: str
    role: Right
    is_for_other: bool


@dataclass(frozen=True, slots=True)
class AcceptPage(Page):
    """`/join` for a signed-in person.

    Attributes:
        invitation: that the person may accept; None: asks for one.
        form_csrf: the token of the form that asks.
    """

    template: ClassVar[str] = "accept.html"
    problem: str
    invitation: ShownInvitation | None
    form_csrf: str


class JoinPages:
    """`/join`, also on servers without sign-up, and `/account/choose`."""

    def __init__(self, store: Store, guards: Guards, pages: Pages, anonymous: AnonymousPages) -> None:
        self._store = store
        self._guards = guards
        self._pages = pages
        self._anonymous = anonymous
        self._attempts = Throttle()

    def add_to(self, router: APIRouter, account_page: PageHandler) -> None:
        """account_page: shown where a switch is refused."""
        self._guards.anonymous_page(router, "/join", self.join_page)
        self._guards.anonymous_form(router, "/join", self.join)
        self._guards.anonymous_form(router, "/join/keep", self.keep)
        self._guards.form(router, "/join/accept", self.accept, self.accept_page, "viewer")
        self._guards.form(router, "/account/choose", self.choose, account_page, "viewer")

    def join_page(self, request: Request) -> Response:
        if session := self._guards.session(request):
            return self.accept_page(request, session)
        return self._anonymous.show(JoinPage, request, Form())

    def join(self, request: Request, form: Form) -> Response:
        """Makes a new member, who signs in with this password from now on."""
        # Every attempt counts: those that succeed create members, the others may guess invitations or addresses.
        address = address_of(request)
        if wait := self._attempts.attempt(network_of(address), address):
            return self._anonymous.too_many(JoinPage, request, form, wait)
        try:
            check_repeated(form)
            invite, email, name = form["invite"].strip(), form["email"], form["name"]
            member = self._store.invites.use(invite, email, name, form["new"], for_member=True)
        except InvalidRequest as error:
            return self._anonymous.show(JoinPage, request, form, str(error), 400)
        return self._anonymous.open_session(request, member.id, "/keys")

    def keep(self, request: Request, form: Form) -> Response:
        """Keeps the invitation until its person has signed in, and then shows it."""
        signing_in = f"/sign-in?{urlencode({'next': KEPT_INVITATION})}"
        response = RedirectResponse(KEPT_INVITATION if self._guards.session(request) else signing_in, 303)
        return set_short_cookie(response, request, INVITE_COOKIE, form["invite"].strip()[:MAX_INVITE])

    def accept_page(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        token = short_cookie(request, INVITE_COOKIE) if "kept" in request.query_params else refusal.typed["invite"]
        invitation = self._invitation(token, session)
        problem = refusal.problem
        if token and invitation is None:
            problem = "This invitation is not valid, or has expired. Ask for a new one."
        page = AcceptPage(problem, invitation, csrf := form_token(request))
        return set_form_token(self._pages.render(page, request, session, refusal.status), request, csrf)

    def accept(self, request: Request, session: Session, form: Form) -> Response:
        account_id = self._store.invites.accept(form["invite"], session.account.id)
        self._store.sessions.choose(request.cookies[SESSION_COOKIE], account_id)
        return delete_short_cookie(RedirectResponse("/members?done=joined", 303), request, INVITE_COOKIE)

    def choose(self, request: Request, session: Session, form: Form) -> Response:
        """Switches to another account, and shows the same page of it."""
        self._store.sessions.choose(request.cookies[SESSION_COOKIE], form.number("account") or 0)
        return RedirectResponse(after_sign_in(form["next"].removeprefix(root_of(request))), 303)

    def _invitation(self, token: str, session: Session) -> ShownInvitation | None:
        invite = self._store.invites.find(token) if token else None
        if invite is None or invite.account_id is None or invite.role is None:
            return None
        account, by = (self._store.accounts.by_id(one) for one in (invite.account_id, invite.created_by))
        assert account is not None and by is not None, "This is a bug: the rows of accounts stay."
        is_for_other = invite.email not in (None, session.account.email)
        return ShownInvitation(token, by.email, account.email, invite.role, is_for_other)
