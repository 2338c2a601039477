"""The routes of all pages. Those of accounts exist only with accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

from rerankd.config import ServerSettings
from rerankd.errors import RerankdError
from rerankd.prices import Price
from rerankd.search.made_by import made_by
from rerankd.server.models import Served
from rerankd.server.prices_in_force import in_force
from rerankd.types import CallLimits, ModelInfo
from rerankd.web.context import WebContext
from rerankd.web.pages import Page, Pages, static_file
from rerankd.web.playground import playground_page
from rerankd.web.samples import SampleRankings, samples

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.sessions import Session

SWAGGER_POLICY = "; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Added to the pages' policy for Swagger UI: it uses inline styles, and pictures in its style sheet."""


@dataclass(frozen=True, slots=True)
class SearchPage(Page):
    """`/search`. state: read by the page's script. has_vectors: whether the index has them."""

    template: ClassVar[str] = "search.html"
    names: tuple[str, ...]
    state: Mapping[str, Any]
    needs_key: bool
    has_vectors: bool


@dataclass(frozen=True, slots=True)
class PricedModel:
    """A served model with its line of the price list, as it holds here."""

    info: ModelInfo
    names: tuple[str, ...]
    price: Price


@dataclass(frozen=True, slots=True)
class PricesPage(Page):
    """`/rates`. models: none while the default model loads. prices: the list as it holds here."""

    template: ClassVar[str] = "rates.html"
    models: tuple[PricedModel, ...]
    names: tuple[str, ...]
    prices: tuple[Price, ...]
    limits: CallLimits
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
        "by_mail": context.mailer is not None,
        "provider": context.settings.provider_name if context.provider is not None else "",
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
        return pages.render(playground_page(context, session), request, session)

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
        response = pages.render(DocsPage(), request, session_or_none(request))
        response.headers["content-security-policy"] += SWAGGER_POLICY
        return response

    router.include_router(_sample_routes(context))
    router.include_router(_file_routes())
    return router


def _sample_routes(context: WebContext) -> APIRouter:
    """The ranking of a sample, made once, for visitors who would have to pay for their own."""
    router = APIRouter(include_in_schema=False)
    rankings = SampleRankings(context.models)

    @router.get("/sample")
    async def sample(name: str = next(iter(samples()))) -> Response:
        try:
            return JSONResponse(await rankings.ranking(name), headers={"cache-control": "no-store"})
        except KeyError:
            return JSONResponse({"message": "There is no such sample."}, 404)
        except RerankdError as error:
            return JSONResponse({"message": str(error)}, 503)

    return router


def _file_routes() -> APIRouter:
    """The files of the pages, and those that browsers and robots request."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    async def static(name: str, request: Request) -> Response:
        return static_file(name, request)

    @router.get("/static/{tag}/{name}")
    async def tagged_static(tag: str, name: str, request: Request) -> Response:
        return static_file(name, request, tag)

    @router.get("/favicon.ico")
    async def favicon(request: Request) -> Response:
        return static_file("icon.svg", request)

    @router.get("/robots.txt")
    async def robots() -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    return router


def _no_session(_: Request) -> None:
    """Without accounts nobody is signed in."""


def _search(context: WebContext, session: Session | None) -> SearchPage:
    state = {
        "needsKey": context.needs_key,
        "csrf": session.csrf if session and session.may("member") else None,
        "accounts": context.accounts is not None,
        "ready": context.models.default.ready,
    }
    index = context.settings.index
    return SearchPage(context.names(), state, context.needs_key, index is not None and made_by(index) is not None)


def _prices(context: WebContext) -> PricesPage:
    models = tuple(_priced(context, served) for served in context.models if served.ready) if context.names() else ()
    listed = tuple(in_force(one, context.models, context.settings) for one in context.prices.current().prices)
    return PricesPage(
        models=models,
        names=context.names(),
        prices=listed,
        limits=models[0].price.limits if models else context.settings.limits,
        settings=context.settings,
        progress=context.models.default.progress,
    )


def _priced(context: WebContext, served: Served) -> PricedModel:
    names = context.models.names_of(served)
    price = context.prices.current().of(names)
    # By the model's own name: the list may have one that it only answers to.
    known = in_force(price.model_copy(update={"model": names[0]}), context.models, context.settings)
    return PricedModel(served.scorer.info, names, known)
