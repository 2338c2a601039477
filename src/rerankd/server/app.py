"""The HTTP application: which path goes where."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rerankd.config import ServerSettings
from rerankd.errors import MethodNotAllowed
from rerankd.rates import RateFile
from rerankd.server.access_log import AccessLog
from rerankd.server.accounts import Accounts
from rerankd.server.admission import Admission
from rerankd.server.auth import Auth
from rerankd.server.call import Surroundings, answer_call, error_response
from rerankd.server.dialect_status import dialect_status_routes
from rerankd.server.metrics import Metrics, metrics_routes
from rerankd.server.openapi import describe
from rerankd.server.served import ServedModel
from rerankd.server.status import status_routes
from rerankd.server.wire import dialect_routes
from rerankd.server.wire.dialect import Dialect
from rerankd.version import __version__
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store


def create_app(
    settings: ServerSettings,
    served: ServedModel,
    store: Store | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application around a model that it starts to load when it starts.

    Args:
        store: of the accounts, None where there are none.
        on_failure: called if the model cannot be loaded; `served.failure` says why.

    Raises:
        SettingsError: the rate card is wrong, or Redis's package is missing.
    """
    rates = RateFile(settings.config)
    routes = dialect_routes(settings)
    metrics = Metrics(served, {dialect.name for dialects in routes.values() for dialect in dialects})
    accounts = Accounts(store) if store else None
    auth = Auth(settings.api_key, accounts)
    admission = Admission(settings, auth, rates, served, accounts)

    metrics.watch_accounts(lambda: "accounts" not in admission.troubles, lambda: admission.failed_renewals)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.load(on_failure, rates.serve) if accounts else served.load(on_failure)
        keeping_up = asyncio.create_task(admission.keep_up())
        yield
        keeping_up.cancel()
        served.close()
        await admission.close()
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
    )
    app.add_middleware(AccessLog)
    around = Surroundings(settings, served, admission, metrics)
    for (method, path), dialects in routes.items():
        app.add_api_route(path, _endpoint(dialects, around), methods=[method], include_in_schema=False)
    app.include_router(status_routes(served, settings, auth, rates, lambda: admission.troubles))
    app.include_router(metrics_routes(metrics))
    app.include_router(dialect_status_routes(served, settings, auth))
    app.include_router(web_routes(WebContext(settings, rates, served, store, metrics.status)))
    describe(app, routes)

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        here = {method: dialects for (method, path), dialects in routes.items() if path == request.url.path}
        if error.status_code == 405 and here:
            told = MethodNotAllowed(request.method, tuple(here))
            response = error_response(here["POST"][-1], told, str(uuid.uuid4()))
            metrics.observe(dialect=here["POST"][-1].name, status=response.status_code, seconds=0.0, error=told)
            return response
        detail = error.detail
        if error.status_code == 404:
            paths = ", ".join(dict.fromkeys(path for _, path in routes))
            detail = f"Not Found: {request.method} {request.url.path[:200]}. Rerank here: POST {paths}"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    return app


def _endpoint(dialects: Sequence[Dialect[Any]], around: Surroundings) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer_call(request, dialects, around)

    return endpoint
