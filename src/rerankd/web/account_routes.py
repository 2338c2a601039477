"""The pages that exist only where accounts are on. Imported only there: it brings the database with it."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor

from rerankd.accounts.store import Store
from rerankd.web.admin_pages import AdminPages
from rerankd.web.context import WebContext
from rerankd.web.own_pages import OwnPages
from rerankd.web.pages import Pages
from rerankd.web.sign_in import SignIn
from rerankd.web.visitors import Visitors


class _RowNumber(Convertor[int]):
    """What a database can hold. Python stops at 4,300 digits, with an error."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


def account_routes(context: WebContext, store: Store, pages: Pages) -> tuple[APIRouter, Visitors]:
    """`/sign-in`, `/sign-up`, `/sign-out`, `/account`, `/keys`, `/usage`, `/usage.csv`, `/admin`, …"""
    register_url_convertor("row", _RowNumber())
    router = APIRouter()
    visitors = Visitors(store.sessions, pages)
    SignIn(context, store, visitors, pages).add_to(router)
    OwnPages(context, store, visitors, pages).add_to(router)
    AdminPages(context, store, visitors, pages).add_to(router)
    return router, visitors
