"""Pages that show one account: its owner's under `/…`, an administrator's under `/admin/accounts/{id}/…`."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from rerankd.accounts.accounts import Account
from rerankd.accounts.sessions import Session
from rerankd.accounts.store import Store
from rerankd.web.guards import Access
from rerankd.web.pages import Pages, ProblemPage

ONE_ACCOUNT = "/admin/accounts/{account_id:row}"

AccountHandler = Callable[[Request, Session, Account, str], Response]
"""Shows an account. Its last argument is the path of the account's pages, empty for its owner."""


def account_paths(name: str) -> tuple[tuple[str, Access], tuple[str, Access]]:
    """The paths of a page, and who may open each. name: as `/statement`."""
    return (name, "viewer"), (f"{ONE_ACCOUNT}{name}", "admin")


class ShownAccounts:
    """Finds the account that a request is about. The guard of the path has checked the role."""

    def __init__(self, store: Store, pages: Pages) -> None:
        self._store = store
        self._pages = pages

    def with_account(self, request: Request, session: Session, handler: AccountHandler) -> Response:
        """Calls the handler with the visitor's account, or with the account that the path names."""
        account_id = request.path_params.get("account_id")
        if account_id is None:
            return handler(request, session, session.payer, "")
        account = self._store.accounts.by_id(account_id)
        if account is None:
            return self._pages.render(ProblemPage("There is no such account."), request, session, 404)
        return handler(request, session, account, f"/admin/accounts/{account.id}")
