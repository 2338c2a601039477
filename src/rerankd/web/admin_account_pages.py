"""The pages of one account for administrators: credit, limits, access, keys, usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import ClassVar
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.budget import next_month
from rerankd.accounts.deletion import delete_account
from rerankd.accounts.keys import Key
from rerankd.accounts.members import Member
from rerankd.accounts.memberships import Membership
from rerankd.accounts.sessions import Session
from rerankd.accounts.validation import read_amount, read_budget
from rerankd.errors import InvalidRequest
from rerankd.web import formatting
from rerankd.web.account_pages import read_limits
from rerankd.web.forms import NO_REFUSAL, Form, Refusal, role_of
from rerankd.web.guards import FormHandler
from rerankd.web.listing import number_of, text_of
from rerankd.web.page_group import PageGroup
from rerankd.web.pages import Page
from rerankd.web.shown_account import ONE_ACCOUNT
from rerankd.web.usage_report import UsageReport, usage_report

DONE = {
    "made": "The account is created.",
    "limits": "The limits are set.",
    "disabled": "The account is disabled: its keys are refused, and it is signed out.",
    "enabled": "The account is enabled again.",
    "role": "The role is changed.",
    "password": "The password is set, and the account is signed out everywhere.",
    "factor": "The second factor is removed: the password alone signs in.",
    "revoked": "The key is revoked.",
    "budget": "The budget is set.",
    "unlinked": "The provider is unlinked: nobody signs in to the account there.",
    "deleted": "The account is deleted: its number and its entries are left.",
}


@dataclass(frozen=True, slots=True)
class AdminAccountPage(Page):
    """`/admin/accounts/{id}`.

    Attributes:
        payer: the account that this one is a member of, and which pays; None: it is not a member.
        members: of this account, itself included.
        joined: the accounts that its person acts in, beside this one.
        starts_again: the day on which budgets start again.
        is_own: the administrator's own account.
        done: a message after a change.
        link: just created, for the owner. opens: what it does.
        num_linked: how many people at a provider sign in to the account.
    """

    template: ClassVar[str] = "admin_account.html"
    usage: UsageReport
    account: Account
    payer: Account | None
    members: Sequence[Member]
    joined: Sequence[Membership]
    keys: Sequence[Key]
    currency: str
    limits: Mapping[str, int | None]
    starts_again: date
    is_own: bool
    done: str
    problem: str
    typed: Form
    link: str
    opens: str
    num_linked: int


class AdminAccountPages(PageGroup):
    """`/admin/accounts/{id}`, and its forms."""

    def add_to(self, router: APIRouter) -> None:
        guards = self._guards
        guards.page(router, ONE_ACCOUNT, self.account, "admin")
        guards.form(router, f"{ONE_ACCOUNT}/password", self.set_password, self.account, "admin", guards.hashing)
        changes: dict[str, FormHandler] = {
            "credit": self.add_credit,
            "limits": self.set_limits,
            "state": self.set_state,
            "role": self.set_role,
            "second-factor": self.remove_second_factor,
            "unlink": self.unlink,
            "delete": self.delete,
            "link": self.create_link,
            "email-link": self.create_email_link,
            "keys/{key_id:row}/revoke": self.revoke_key,
            "budget": self.set_budget,
        }
        for path, handler in changes.items():
            guards.form(router, f"{ONE_ACCOUNT}/{path}", handler, self.account, "admin")

    def account(self, request: Request, session: Session, refusal: Refusal = NO_REFUSAL, /) -> Response:
        return self._account(request, session, refusal)

    def create_link(self, request: Request, session: Session, form: Form) -> Response:
        token = self._store.links.for_password(self._other(request, session).id, session.account.id)
        # Shown in this response only. After the #: browsers send it to no server.
        link, opens = f"{self._context.address(request)}/reset#{token}", "sets a new password of the account"
        return self._account(request, session, NO_REFUSAL, link, opens)

    def create_email_link(self, request: Request, session: Session, form: Form) -> Response:
        account, email = self._existing(request), form["email"]
        token = self._store.links.for_email(account.id, email, session.account.id)
        link = f"{self._context.address(request)}/account/email#{token}"
        return self._account(request, session, NO_REFUSAL, link, f"changes the address to {email.strip()}")

    def _account(
        self, request: Request, session: Session, refusal: Refusal, link: str = "", opens: str = ""
    ) -> Response:
        def show(request: Request, session: Session, account: Account, _: str) -> Response:
            own = (account.id, account.team_id)
            page = AdminAccountPage(
                usage=usage_report(self._store.database, request, account.id, self._currency),
                account=account,
                payer=self._store.accounts.by_id(account.team_id) if account.team_id else None,
                members=self._store.members.of(account.id),
                joined=[one for one in self._store.members.accounts_of(account.id) if one.account_id not in own],
                keys=self._store.keys.of_account(account.id),
                currency=self._currency,
                limits=asdict(account.limits),
                starts_again=next_month(datetime.now(UTC)),
                is_own=account.id == session.account.id,
                done=self._done(request, account),
                problem=refusal.problem,
                typed=refusal.typed,
                link=link,
                opens=opens,
                num_linked=len(self._store.identities.of_account(account.id)),
            )
            return self._pages.render(page, request, session, refusal.status)

        return self._accounts.with_account(request, session, show)

    def add_credit(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        note = form["note"].strip()[:500]
        credit = self._store.ledger.add_credits(account.id, read_amount(form["amount"]), note, session.account.id)
        return back_to(account.id, "credit", entry=credit.id)

    def set_limits(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.accounts.set_limits(account.id, read_limits(form), session.account.id)
        return back_to(account.id, "limits")

    def set_state(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        if form["disabled"] not in ("yes", "no"):
            raise InvalidRequest("Disabled must be “yes” or “no”.")
        disabled = form["disabled"] == "yes"
        change = self._store.accounts.disable if disabled else self._store.accounts.enable
        change(account.id, session.account.id)
        return back_to(account.id, "disabled" if disabled else "enabled")

    def set_role(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        self._store.accounts.set_role(account.id, role_of(form), session.account.id)
        return back_to(account.id, "role")

    def set_password(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        self._store.accounts.set_password(account.id, form["password"], session.account.id)
        return back_to(account.id, "password")

    def remove_second_factor(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        self._store.second_factors.turn_off(account.id, session.account.id)
        return back_to(account.id, "factor")

    def unlink(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.identities.unlink(account.id, session.account.id)
        return back_to(account.id, "unlinked")

    def delete(self, request: Request, session: Session, form: Form) -> Response:
        account = self._other(request, session)
        delete_account(self._store.database, account.id, session.account.id)
        return back_to(account.id, "deleted")

    def revoke_key(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        self._store.keys.revoke(request.path_params["key_id"], account.id, session.account.id)
        return back_to(account.id, "revoked")

    def set_budget(self, request: Request, session: Session, form: Form) -> Response:
        account = self._existing(request)
        key_id, budget = form.number("key") or 0, read_budget(form["budget"])
        self._store.keys.set_budget(key_id, budget, account.id, session.account.id)
        return back_to(account.id, "budget")

    def _done(self, request: Request, account: Account) -> str:
        """The change that was made: for credit, with its note and the balance after it."""
        done, entry = text_of(request, "done"), number_of(request, "entry")
        if done != "credit" or entry is None:
            return DONE.get(done, "")
        credit = self._store.ledger.credit(account.id, entry)
        if credit is None:
            return ""
        amount, balance = (formatting.money(micro, self._currency) for micro in (credit.amount, credit.balance_after))
        note = f" (“{credit.note}”)" if credit.note else ""
        return f"{amount} is added{note}. The new balance is {balance}."

    def _existing(self, request: Request) -> Account:
        if account := self._store.accounts.by_id(request.path_params["account_id"]):
            return account
        raise InvalidRequest("There is no such account.")

    def _other(self, request: Request, session: Session) -> Account:
        """Refuses one's own account, so that administrators cannot lock themselves out."""
        account = self._existing(request)
        if account.id == session.account.id:
            raise InvalidRequest("This is your own account: another administrator can do that.")
        return account


def back_to(account_id: int, done: str, **more: int) -> Response:
    """To the page of an account, which says what was done."""
    return RedirectResponse(f"/admin/accounts/{account_id}?{urlencode({'done': done, **more})}", 303)
