"""The pages' addresses. Those of accounts exist only where accounts are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from starlette.responses import PlainTextResponse

from rerankd.types import DEFAULT_INSTRUCT
from rerankd.web.context import WebContext
from rerankd.web.pages import Pages, static_file

if TYPE_CHECKING:
    from rerankd.accounts.sessions import Session

SORTING_MODES = {
    "Question answering": f"{DEFAULT_INSTRUCT}.",
    "Similarity": "Retrieve semantically similar text.",
}
"""The two that DashScope documents."""

SWAGGER_NEEDS = "; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
"""Beside what every page may do: it styles what it draws, and has its pictures in its style sheet."""


def web_routes(context: WebContext) -> APIRouter:
    """`/` (GET only), `/rates`, `/docs`, `/static/…`, and what browsers and robots ask for.

    With accounts also those of `account_routes`.
    """
    shared = {
        "accounts_on": context.accounts is not None,
        "sign_up": context.settings.sign_up if context.accounts is not None else "off",
    }
    pages = Pages(shared, private=context.accounts is not None)
    router = APIRouter(include_in_schema=False)
    who: Callable[[Request], Session | None] = _nobody
    if context.accounts is not None:
        # Imported here: without accounts no database is loaded.
        from rerankd.web.account_routes import account_routes

        private, visitors = account_routes(context, context.accounts, pages)
        router.include_router(private)
        who = visitors.glance

    @router.get("/")
    def playground(request: Request) -> Response:
        return pages.render("playground.html", request, session=who(request), **_playground(context))

    @router.get("/rates")
    def prices(request: Request) -> Response:
        return pages.render("rates.html", request, session=who(request), **_prices(context))

    @router.get("/docs")
    def docs(request: Request) -> Response:
        response = pages.render("docs.html", request)
        response.headers["content-security-policy"] += SWAGGER_NEEDS
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


def _nobody(_: Request) -> None:
    """Who is signed in where nobody can be."""


def _playground(context: WebContext) -> dict[str, Any]:
    """What the playground's template and script are told."""
    names = context.names()
    card = context.prices.current()
    state = {
        "needsKey": context.needs_key,
        "accounts": context.accounts is not None,
        "maxDocuments": context.settings.max_documents,
        "currency": card.currency,
        "price": str(card.of(names).input_price) if names else "0",
        "defaultInstruct": SORTING_MODES["Question answering"],
        "ready": context.models.default.ready,
    }
    return {"names": names, "modes": SORTING_MODES, "state": state, "needs_key": context.needs_key}


def _prices(context: WebContext) -> dict[str, Any]:
    names = context.names()
    card = context.prices.current()
    return {
        "names": names,
        "info": context.models.default.scorer.info if names else None,
        "price": card.of(names) if names else None,
        "card": card,
        "settings": context.settings,
        "progress": context.models.default.progress,
    }
