"""The members of an account: their list, invitations, roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.admin_log import AdminAction
from rerankd.accounts.invites import OpenInvite
from rerankd.accounts.members import Member
from rerankd.accounts.memberships import RIGHTS, Right
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.accounts.validation import read_email
from rerankd.errors import InvalidRequest
from rerankd.web.context import WebContext
from rerankd.web.cookies import delete_session, set_session
from rerankd.web.forms import NO_REFUSAL, Form, Refusal
from rerankd.web.guards import FormHandler, Guards
from rerankd.web.pages import Page, Pages

MAX_ACTIONS = 50
"""Lines of the log on the page."""

DONE = {
    "role": "The role is changed.",
    "removed": "The member is removed: the sessions of this person have ended.",
    "withdrawn": "The invitation is withdrawn.",
    "joined": "You joined this account, and act in it now. Switch between your accounts at the top of each page.",
    "left": "You left the account, and act in this one now.",
}

INVITED = """\
{by} invites you to the account {account} on {site}, as {role}.
Join it here, within 14 days:

{site}/join#{token}

If you do not know who that is, ignore this mail: nothing happens.
"""


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation that was just created. link: shown in one response only."""

    link: str = ""
    email: str | None = None
    is_mailed: bool = False


@dataclass(frozen=True, slots=True)
class MembersPage(Page):
    """`/members`.

    Attributes:
        done: a message after a change.
        invites: that can be used; for owners.
        actions: what members did, the newest first; for owners.
        invitation, invited, mailed: the link of a new invitation, the address that it is for, whether it was mailed.
    """

    template: ClassVar[str] = "members.html"
    members: Sequence[Member]
    invites: Sequence[OpenInvite]
    actions: Sequence[AdminAction]
    is_owner: bool
    done: str
    problem: str
    typed: Form
    invitation: str
    invited: str | None
    mailed: bool


class MemberPages:
    """`/members` with its forms."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._guards = guards
        self._pages = pages

    def add_to(self, router: APIRouter) -> None:
        self._guards.page(router, "/members", self.members)
        forms: dict[str, FormHandler] = {
            "invite": self.invite,
            "withdraw": self.withdraw,
            "role": self.set_role,
            "remove": self.remove,
        }
        for name, handler in forms.items():
            self._guards.form(router, f"/members/{name}", handler, self.members, "owner")
        self._guards.form(router, "/members/leave", self.leave, self.members, "viewer")

    def members(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        return self._show(request, session, refusal, NewInvitation())

    def invite(self, request: Request, session: Session, form: Form) -> Response:
        email = read_email(form["email"]) if form["email"].strip() else None
        role = _role(form)
        token = self._store.invites.create_for_member(session.account.id, session.payer.id, role, email)
        is_mailed = email is not None and self._mail(session, email, role, token)
        # After the #: browsers send it to no server, so it reaches no log and no other site.
        link = f"{self._context.address(request)}/join#{token}"
        return self._show(request, session, NO_REFUSAL, NewInvitation(link, email, is_mailed))

    def withdraw(self, request: Request, session: Session, form: Form) -> Response:
        self._store.invites.withdraw(session.payer.id, form["invite"], session.account.id)
        return RedirectResponse("/members?done=withdrawn", 303)

    def set_role(self, request: Request, session: Session, form: Form) -> Response:
        member = form.number("member") or 0
        self._store.members.set_role(session.payer.id, member, _role(form), session.account.id)
        return RedirectResponse("/members?done=role", 303)

    def remove(self, request: Request, session: Session, form: Form) -> Response:
        member = form.number("member") or 0
        if member == session.account.id:
            raise InvalidRequest("This is you: use “Leave this account”.")
        self._store.members.remove(session.payer.id, member, session.account.id)
        return RedirectResponse("/members?done=removed", 303)

    def leave(self, request: Request, session: Session, form: Form) -> Response:
        person = session.account.id
        self._store.members.remove(session.payer.id, person, person)
        if not self._store.members.accounts_of(person):
            return delete_session(RedirectResponse("/sign-in", 303), request)
        return set_session(RedirectResponse("/members?done=left", 303), request, self._store.sessions.open(person))

    def _show(self, request: Request, session: Session, refusal: Refusal, new: NewInvitation) -> Response:
        account_id, is_owner = session.payer.id, session.may("owner")
        page = MembersPage(
            members=self._store.members.of(account_id),
            invites=self._store.invites.open_of(account_id) if is_owner else (),
            actions=self._store.admin_log.of_members(account_id, MAX_ACTIONS) if is_owner else (),
            is_owner=is_owner,
            done=DONE.get(request.query_params.get("done", ""), ""),
            problem=refusal.problem,
            typed=refusal.typed,
            invitation=new.link,
            invited=new.email,
            mailed=new.is_mailed,
        )
        return self._pages.render(page, request, session, refusal.status)

    def _mail(self, session: Session, email: str, role: Right, token: str) -> bool:
        """Returns whether a mail will be sent. Its link never begins with the Host of a request."""
        mailer, site = self._context.mailer, self._context.settings.public_url
        if mailer is None or site is None:
            return False
        by, account = session.account.email, session.payer.email
        text = INVITED.format(by=by, account=account, site=site, role=role, token=token)
        mailer.later(lambda: mailer.send(email, "An invitation", text))
        return True


def _role(form: Form) -> Right:
    """Raises InvalidRequest for a role that does not exist."""
    role: Right | None = next((one for one in RIGHTS if one == form["role"]), None)
    if role is None:
        raise InvalidRequest(f"There is no such role: choose {', '.join(RIGHTS)}.")
    return role
