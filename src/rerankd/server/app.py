"""The HTTP application: which path goes where."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rerankd.config import ServerSettings
from rerankd.errors import MethodNotAllowed
from rerankd.server.call import answer_call, error_response
from rerankd.server.dialect_status import dialect_status_routes
from rerankd.server.limits import RateLimit
from rerankd.server.openapi import describe
from rerankd.server.served import ServedModel
from rerankd.server.status import status_routes
from rerankd.server.wire import dialect_routes
from rerankd.server.wire.dialect import Dialect
from rerankd.version import __version__


def create_app(settings: ServerSettings, served: ServedModel, on_failure: Callable[[], None] = lambda: None) -> FastAPI:
    """The application around a model that it starts to load when it starts.

    Args:
        on_failure: called if the model cannot be loaded; `served.failure` says why.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.load(on_failure)
        yield
        served.close()

    # The offline edition serves the pages of /docs itself; FastAPI's own load them from a public network.
    app = FastAPIOffline(
        title="rerankd",
        version=__version__,
        description="Qwen3-Reranker on your own hardware, behind the rerank APIs your tools already speak.",
        redoc_url=None,
        openapi_tags=[{"name": "rerank"}, {"name": "status"}],
        lifespan=lifespan,
    )
    routes = dialect_routes(settings)
    limit = RateLimit(settings.requests_per_minute)
    for (method, path), dialects in routes.items():
        endpoint = _endpoint(dialects, served, settings, limit)
        app.add_api_route(path, endpoint, methods=[method], include_in_schema=False)
    app.include_router(status_routes(served, settings))
    app.include_router(dialect_status_routes(served, settings))
    describe(app, routes)

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        here = {method: dialects for (method, path), dialects in routes.items() if path == request.url.path}
        if error.status_code == 405 and here:
            told = MethodNotAllowed(request.method, tuple(here))
            return error_response(here["POST"][-1], told, str(uuid.uuid4()))
        detail = error.detail
        if error.status_code == 404:
            paths = ", ".join(dict.fromkeys(path for _, path in routes))
            detail = f"Not Found: {request.method} {request.url.path[:200]}. Rerank here: POST {paths}"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    return app


def _endpoint(
    dialects: Sequence[Dialect[Any]], served: ServedModel, settings: ServerSettings, limit: RateLimit
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer_call(request, dialects, served, settings, limit)

    return endpoint
