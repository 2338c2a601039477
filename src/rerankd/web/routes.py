"""The routes of all pages. Those of accounts exist only with accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

from rerankd.config import ServerSettings
from rerankd.prices import Price, PriceList
from rerankd.types import DEFAULT_INSTRUCT, ModelInfo
from rerankd.web.context import WebContext
from rerankd.web.pages import Page, Pages, static_file

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.sessions import Session

SORTING_MODES = {
    "Question answering": f"{DEFAULT_INSTRUCT}.",
    "Similarity": "Retrieve semantically similar text.",
}
"""The two instructs that DashScope documents."""

SWAGGER_POLICY = "; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Added to the pages' policy for Swagger UI: it uses inline styles, and pictures in its style sheet."""


@dataclass(frozen=True, slots=True)
class PlaygroundPage(Page):
    """`/`. modes: instruct by name. state: read by the script."""

    template: ClassVar[str] = "playground.html"
    names: tuple[str, ...]
    modes: Mapping[str, str]
    state: Mapping[str, Any]
    needs_key: bool


@dataclass(frozen=True, slots=True)
class SearchPage(Page):
    """`/search`. state: read by the page's script."""

    template: ClassVar[str] = "search.html"
    names: tuple[str, ...]
    state: Mapping[str, Any]
    needs_key: bool


@dataclass(frozen=True, slots=True)
class PricesPage(Page):
    """`/rates`. info, price: None while the model loads."""

    template: ClassVar[str] = "rates.html"
    names: tuple[str, ...]
    info: ModelInfo | None
    price: Price | None
    price_list: PriceList
    settings: ServerSettings
    progress: tuple[str, float]


@dataclass(frozen=True, slots=True)
class DocsPage(Page):
    """`/docs`."""

    template: ClassVar[str] = "docs.html"


def web_routes(context: WebContext) -> APIRouter:
    """`/` (GET only), `/rates`, `/docs`, `/static/…`, and the files that browsers and robots request.

    With an index also `/search`, with accounts the routes of `account_routes`.
    """
    shared = {
        "accounts_on": context.accounts is not None,
        "has_index": context.settings.index is not None,
        "sign_up": context.settings.sign_up if context.accounts is not None else "off",
    }
    pages = Pages(shared, private=context.accounts is not None)
    router = APIRouter(include_in_schema=False)
    session_or_none: Callable[[Request], Session | None] = _no_session
    if context.accounts is not None:
        # Imported here: without accounts no database is loaded.
        from rerankd.web.account_routes import account_routes

        private, guards = account_routes(context, context.accounts, pages)
        router.include_router(private)
        session_or_none = guards.session_or_none

    @router.get("/")
    def playground(request: Request) -> Response:
        session = session_or_none(request)
        return pages.render(_playground(context, session), request, session)

    if context.settings.index is not None:

        @router.get("/search")
        def search(request: Request) -> Response:
            session = session_or_none(request)
            return pages.render(_search(context, session), request, session)

    @router.get("/rates")
    def prices(request: Request) -> Response:
        return pages.render(_prices(context), request, session_or_none(request))

    @router.get("/docs")
    def docs(request: Request) -> Response:
        response = pages.render(DocsPage(), request)
        response.headers["content-security-policy"] += SWAGGER_POLICY
        return response

    @router.get("/static/{name}")
    async def static(name: str, request: Request) -> Response:
        return static_file(name, request)

    @router.get("/favicon.ico")
    async def favicon(request: Request) -> Response:
        return static_file("icon.svg", request)

    @router.get("/robots.txt")
    async def robots() -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    return router


def _no_session(_: Request) -> None:
    """Without accounts nobody is signed in."""


def _playground(context: WebContext, session: Session | None) -> PlaygroundPage:
    names = context.names()
    prices = context.prices.current()
    state = {
        "needsKey": context.needs_key,
        "csrf": session.csrf if session else None,
        "accounts": context.accounts is not None,
        "maxDocuments": context.settings.max_documents,
        "currency": prices.currency,
        "price": str(prices.of(names).input_price) if names else "0",
        "defaultInstruct": SORTING_MODES["Question answering"],
        "ready": context.models.default.ready,
    }
    return PlaygroundPage(names, SORTING_MODES, state, context.needs_key)


def _search(context: WebContext, session: Session | None) -> SearchPage:
    state = {
        "needsKey": context.needs_key,
        "csrf": session.csrf if session else None,
        "accounts": context.accounts is not None,
        "ready": context.models.default.ready,
    }
    return SearchPage(context.names(), state, context.needs_key)


def _prices(context: WebContext) -> PricesPage:
    names, served = context.names(), context.models.default
    prices = context.prices.current()
    return PricesPage(
        names=names,
        info=served.scorer.info if names else None,
        price=prices.of(names) if names else None,
        price_list=prices,
        settings=context.settings,
        progress=served.progress,
    )
