"""The HTTP application without its pages: builds its parts, its middleware and its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from rerankd.admission.async_store import AsyncStore
from rerankd.admission.gate import Gate
from rerankd.admission.identity import Authenticator
from rerankd.admission.rate_limits import RateLimiter
from rerankd.apis.base import Api, ApiSettings
from rerankd.apis.registry import Routes, api_routes, search_routes
from rerankd.calibration.profile import load_calibrations
from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.server import model_cards, status, tokens
from rerankd.server.access_log import AccessLog
from rerankd.server.api_status import api_status_routes
from rerankd.server.call import answer_call
from rerankd.server.call_log import CallLog
from rerankd.server.context import ServerContext
from rerankd.server.credit_mails import CreditMails
from rerankd.server.foreign_pages import ForeignPages
from rerankd.server.held import HeldBytes, Holding
from rerankd.server.keyed_paths import KeyedPaths
from rerankd.server.metrics.metrics import Metrics, metrics_routes
from rerankd.server.models import Models
from rerankd.server.no_route import no_such_route
from rerankd.server.openapi import describe
from rerankd.server.paths import Paths
from rerankd.server.searching import load_embedder, opened_index
from rerankd.tracing import Traces
from rerankd.version import __version__

if TYPE_CHECKING:  # SQLAlchemy and tantivy are loaded only where they are needed
    from rerankd.accounts.store import Store
    from rerankd.search.index import Index


CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "PUT"),
    "allow_headers": ("*",),
    "expose_headers": (
        *("x-rerankd-upstream", "x-rerankd-attempts", "x-rerankd-nothing-relevant"),
        *("x-request-id", "x-rerankd-model", "x-rerankd-warning", "x-rerankd-cost", "x-rerankd-tokens", "retry-after"),
        *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ),
    "allow_private_network": True,
}
"""What scripts of the allowed origins may send and read. No cookies: only our own pages have sessions."""


@dataclass(frozen=True, slots=True)
class Server:
    """The application without web pages, and its metrics."""

    app: FastAPI
    metrics: Metrics


def create_server(
    settings: ServerSettings,
    models: Models,
    prices: PriceFile,
    store: Store | None,
    on_failure: Callable[[], None],
    held: HeldBytes | None,
    traces: Traces,
    credit_mails: CreditMails | None,
) -> Server:
    """See `rerankd.app.create_app`. credit_mails: warns accounts; None: nobody does."""
    index = opened_index(settings)
    routes = api_routes(api_settings(settings)) | (_search_routes(settings, index) if index is not None else {})
    metrics = Metrics(models, {api.name for apis in routes.values() for api in apis})
    accounts = AsyncStore(store) if store else None
    auth = Authenticator(settings.api_key, accounts)
    gate = Gate(auth, RateLimiter(settings.redis), prices, models.names_without_body, settings.limits, accounts)
    metrics.watch_accounts(lambda: "accounts" not in gate.troubles, lambda: gate.failed_renewals)
    context = ServerContext(
        settings,
        routes,
        models,
        auth,
        gate,
        prices,
        metrics,
        traces,
        CallLog(accounts, settings.call_log_days) if accounts and settings.call_log_days else None,
        calibrations=load_calibrations(settings.calibration),
    )
    app = _application(_lifespan(context, accounts, on_failure, credit_mails, index))
    app.state.context = context
    app.add_exception_handler(HTTPException, no_such_route)
    _add_middleware(app, settings, auth, held)
    _add_routes(app, context)
    return Server(app, metrics)


def _search_routes(settings: ServerSettings, index: Index) -> Routes:
    from rerankd.search.order import shown_order

    return search_routes(api_settings(settings), index, shown_order)


def _lifespan(
    context: ServerContext,
    accounts: AsyncStore | None,
    on_failure: Callable[[], None],
    credit_mails: CreditMails | None,
    index: Index | None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Starts and ends the parts of the application."""
    models, gate = context.models, context.gate

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        models.load(on_failure, context.prices.serve) if accounts else models.load(on_failure)
        if index is not None:
            load_embedder(index, context.settings)
        tasks = [asyncio.create_task(gate.maintain())]
        if credit_mails:
            tasks.append(asyncio.create_task(credit_mails.run()))
        if context.calls:
            context.calls.start()
        yield
        for task in tasks:
            task.cancel()
        models.close()
        await models.closed()
        if context.calls:
            await context.calls.close()
        await gate.close()
        if accounts:
            accounts.close()

    return lifespan


def _application(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    # The offline edition has Swagger UI's files. The page that shows them is web/'s: without a script in it.
    return FastAPIOffline(
        title="rerankd",
        version=__version__,
        description="Qwen3-Reranker on your own hardware, behind the rerank APIs your tools already speak.",
        docs_url=None,
        redoc_url=None,
        openapi_tags=[{"name": "rerank"}, {"name": "status"}],
        lifespan=lifespan,
        redirect_slashes=False,  # Paths answers
    )


def _add_middleware(app: FastAPI, settings: ServerSettings, auth: Authenticator, held: HeldBytes | None) -> None:
    """The last one sees a request first."""
    if settings.keyed_status:
        app.add_middleware(KeyedPaths, auth=auth)
    app.add_middleware(Holding, held=held or HeldBytes(settings.max_held_mb * 1_000_000))
    if not settings.needs_key and not settings.no_auth:
        app.add_middleware(ForeignPages, origins=settings.cors_origin)
    if settings.cors_origin:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origin, **CORS)
    app.add_middleware(Paths, router=app.router, root_path=settings.root_path)
    app.add_middleware(AccessLog)


def _add_routes(app: FastAPI, context: ServerContext) -> None:
    for (method, path), apis in context.routes.items():
        app.add_api_route(path, _endpoint(apis, context), methods=[method], include_in_schema=False)
    for router in (status.router, model_cards.router, tokens.router, metrics_routes(context.metrics)):
        app.include_router(router)
    every_api = dict.fromkeys(api for apis in context.routes.values() for api in apis)
    app.include_router(api_status_routes(every_api, context.models, context.settings, context.auth))
    describe(app, context.routes)


def api_settings(settings: ServerSettings) -> ApiSettings:
    """The settings that the APIs may see."""
    return ApiSettings(**{one.name: getattr(settings, one.name) for one in fields(ApiSettings)})


def _endpoint(apis: Sequence[Api[Any]], context: ServerContext) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer_call(request, apis, context)

    return endpoint
