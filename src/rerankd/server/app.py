"""The HTTP application: which path goes where."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse

from rerankd.admission.async_store import AsyncStore
from rerankd.admission.gate import Gate
from rerankd.admission.identity import Authenticator
from rerankd.admission.rate_limits import RateLimiter
from rerankd.apis.base import Api, ApiSettings
from rerankd.apis.errors import MethodNotAllowed
from rerankd.apis.registry import api_routes
from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.server import model_cards, status, tokens
from rerankd.server.access_log import AccessLog
from rerankd.server.api_status import api_status_routes
from rerankd.server.call import answer_call, error_response
from rerankd.server.context import ServerContext
from rerankd.server.foreign_pages import ForeignPages
from rerankd.server.held import HeldBytes, Holding
from rerankd.server.keyed_paths import KeyedPaths
from rerankd.server.metrics.metrics import Metrics, metrics_routes
from rerankd.server.models import Models
from rerankd.server.openapi import describe
from rerankd.server.paths import Paths
from rerankd.types import CallLimits
from rerankd.version import __version__

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store


CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "PUT"),
    "allow_headers": ("*",),
    "expose_headers": (
        *("x-request-id", "x-rerankd-model", "x-rerankd-warning", "x-rerankd-cost", "x-rerankd-tokens", "retry-after"),
        *("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        *("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ),
    "allow_private_network": True,
}
"""What scripts of the allowed origins may send and read. Not cookies: a session is for our own pages."""

PAGES = ("/",)
"""Paths of dialects that are a page as well."""


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
) -> Server:
    """See `rerankd.app.create_app`."""
    routes = api_routes(api_settings(settings))
    metrics = Metrics(models.default, {dialect.name for dialects in routes.values() for dialect in dialects})
    accounts = AsyncStore(store) if store else None
    auth = Authenticator(settings.api_key, accounts)
    limits = CallLimits(settings.requests_per_minute, settings.tokens_per_minute, settings.concurrency)
    gate = Gate(auth, RateLimiter(settings.redis), prices, models.names_without_body, limits, accounts)

    metrics.watch_accounts(lambda: "accounts" not in gate.troubles, lambda: gate.failed_renewals)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        models.load(on_failure, prices.serve) if accounts else models.load(on_failure)
        maintenance = asyncio.create_task(gate.maintain())
        yield
        maintenance.cancel()
        models.close()
        await gate.close()
        if accounts:
            accounts.close()

    # The offline edition has Swagger UI's files. The page that shows them is web/'s: without a script in it.
    app = FastAPIOffline(
        title="rerankd",
        version=__version__,
        description="Qwen3-Reranker on your own hardware, behind the rerank APIs your tools already speak.",
        docs_url=None,
        redoc_url=None,
        openapi_tags=[{"name": "rerank"}, {"name": "status"}],
        lifespan=lifespan,
        redirect_slashes=False,  # Paths answers
    )
    if settings.keyed_status:
        app.add_middleware(KeyedPaths, auth=auth)
    app.add_middleware(Holding, held=held or HeldBytes(settings.max_held_mb * 1_000_000))
    if not settings.needs_key and not settings.no_auth:
        app.add_middleware(ForeignPages, origins=settings.cors_origin)
    if settings.cors_origin:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origin, **CORS)
    app.add_middleware(Paths, router=app.router, root_path=settings.root_path)
    app.add_middleware(AccessLog)
    context = app.state.context = ServerContext(settings, models, auth, gate, prices, metrics)
    for (method, path), dialects in routes.items():
        app.add_api_route(path, _endpoint(dialects, context), methods=[method], include_in_schema=False)
    for router in (status.router, model_cards.router, tokens.router):
        app.include_router(router)
    app.include_router(metrics_routes(metrics))
    apis = dict.fromkeys(one for answering in routes.values() for one in answering)
    app.include_router(api_status_routes(apis, models, settings, auth))
    describe(app, routes)

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        asked = get_route_path(request.scope)
        here = {method: dialects for (method, path), dialects in routes.items() if path == _template(request, asked)}
        if error.status_code == 405 and here:
            told = MethodNotAllowed(request.method, (*here, *(("GET", "HEAD") if asked in PAGES else ())))
            response = error_response(here["POST"][-1], told, str(uuid.uuid4()))
            metrics.observe(dialect=here["POST"][-1].name, status=response.status_code, seconds=0.0, error=told)
            return response
        detail = error.detail
        if error.status_code == 404 and "text/html" in request.headers.get("accept", ""):
            return PlainTextResponse("There is no such page: the playground is at /, the API at /docs.", 404)
        if error.status_code == 404:
            paths = ", ".join(dict.fromkeys(path for _, path in routes))
            detail = f"Not Found: {request.method} {asked[:200]}. Rerank here: POST {paths}"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    return Server(app, metrics)


def api_settings(settings: ServerSettings) -> ApiSettings:
    """The settings that the APIs may see."""
    return ApiSettings(**{one.name: getattr(settings, one.name) for one in fields(ApiSettings)})


def _template(request: Request, asked: str) -> str:
    """The path as the routes have it: one that names a model is any such path."""
    route = request.scope.get("route")
    return str(getattr(route, "path", asked))


def _endpoint(dialects: Sequence[Api[Any]], context: ServerContext) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer_call(request, dialects, context)

    return endpoint
