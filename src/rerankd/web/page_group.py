"""The common base of the groups of pages that exist only with accounts. Knows no page."""

from __future__ import annotations

from fastapi import APIRouter

from rerankd.accounts.store import Store
from rerankd.web.context import WebContext
from rerankd.web.guards import Guards
from rerankd.web.pages import Pages
from rerankd.web.shown_account import ShownAccounts


class PageGroup:
    """Pages about one subject, and their forms."""

    def __init__(self, context: WebContext, store: Store, guards: Guards, pages: Pages) -> None:
        self._context = context
        self._store = store
        self._guards = guards
        self._pages = pages
        self._accounts = ShownAccounts(store, pages)

    def add_to(self, router: APIRouter) -> None:
        """Adds the routes."""
        raise NotImplementedError

    @property
    def _currency(self) -> str:
        return self._context.prices.current().currency
