"""The pages that exist only with accounts. Imported only then, since it imports the database."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor

from rerankd.accounts.store import Store
from rerankd.web.account_pages import AccountPages
from rerankd.web.admin_account_pages import AdminAccountPages
from rerankd.web.admin_pages import AdminPages
from rerankd.web.anonymous import AnonymousPages
from rerankd.web.call_pages import CallPages
from rerankd.web.context import WebContext
from rerankd.web.email_pages import EmailPages
from rerankd.web.guards import Guards
from rerankd.web.join_pages import JoinPages
from rerankd.web.member_pages import MemberPages
from rerankd.web.own_account_pages import OwnAccountPages
from rerankd.web.pages import Pages
from rerankd.web.recovery_pages import RecoveryPages
from rerankd.web.sign_in_pages import SignInPages
from rerankd.web.statement_pages import StatementPages
from rerankd.web.throttle import Throttle


class _RowNumber(Convertor[int]):
    """An id that fits a database column. Python refuses to parse 4,300 digits."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


def account_routes(context: WebContext, store: Store, pages: Pages) -> tuple[APIRouter, Guards]:
    """`/sign-in`, `/sign-up`, `/forgot`, `/reset`, `/account`, `/members`, `/keys`, `/usage`, `/admin`, …"""
    register_url_convertor("row", _RowNumber())
    router = APIRouter()
    guards = Guards(store.sessions, pages)
    anonymous, sign_ins = AnonymousPages(pages, store.sessions), Throttle()
    own_account = OwnAccountPages(store, guards, pages, anonymous, sign_ins)
    own_account.add_to(router)
    EmailPages(context, store, guards, pages, own_account).add_to(router)
    SignInPages(context, store, guards, anonymous, sign_ins).add_to(router, own_account.account_page)
    if context.provider is not None:
        # Imported here: an extra installs what checks the provider's tokens.
        from rerankd.web.oidc_pages import OidcPages

        OidcPages(context, context.provider, store, guards, anonymous, sign_ins).add_to(router)
    RecoveryPages(context, store, guards, pages, anonymous).add_to(router)
    AccountPages(context, store, guards, pages).add_to(router)
    MemberPages(context, store, guards, pages).add_to(router)
    JoinPages(store, guards, pages, anonymous).add_to(router, own_account.account_page)
    StatementPages(context, store, guards, pages).add_to(router)
    CallPages(context, store, guards, pages).add_to(router)
    AdminPages(context, store, guards, pages).add_to(router)
    AdminAccountPages(context, store, guards, pages).add_to(router)
    return router, guards
