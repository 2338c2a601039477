"""The HTTP application: which path goes where."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from rerankd.config import ServerSettings
from rerankd.errors import Loading, MethodNotAllowed, Unauthorized
from rerankd.server.auth import check_key
from rerankd.server.call import answer_call, error_response
from rerankd.server.openapi import describe
from rerankd.server.served import ServedModel
from rerankd.server.wire import all_dialects
from rerankd.server.wire.dialect import Dialect
from rerankd.version import __version__

logger = logging.getLogger(__name__)


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
    dialects = all_dialects(settings)
    for dialect in dialects:
        for path in dialect.paths:
            endpoint = _endpoint(dialect, served, settings)
            app.add_api_route(path, endpoint, methods=["POST"], include_in_schema=False)
    _add_status_routes(app, served, settings)
    describe(app, dialects)
    paths = {path: dialect for dialect in dialects for path in dialect.paths}

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        dialect = paths.get(request.url.path)
        if error.status_code == 405 and dialect is not None:
            return error_response(dialect, MethodNotAllowed(request.method), str(uuid.uuid4()))
        detail = error.detail
        if error.status_code == 404:
            detail = f"Not Found: {request.method} {request.url.path[:200]}. Rerank here: POST {', '.join(paths)}"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    return app


def _endpoint(
    dialect: Dialect[Any], served: ServedModel, settings: ServerSettings
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await answer_call(request, dialect, served, settings)

    return endpoint


def _add_status_routes(app: FastAPI, served: ServedModel, settings: ServerSettings) -> None:
    @app.get(
        "/health",
        tags=["status"],
        summary="Whether requests can be answered",
        responses={503: {"description": "Loading."}},
    )
    async def health() -> Response:
        if not served.ready:
            stage, share = served.progress
            body = {"status": "loading", "stage": stage, "progress": round(share, 3)}
            return JSONResponse(body, 503, {"retry-after": "1"})
        info = served.engine.info
        return JSONResponse(
            {
                "status": "ok",
                "model": info.name,
                "device": info.device,
                "dtype": info.dtype,
                "prompt_id": info.prompt_id,
                "warning": info.notice,
            }
        )

    @app.get("/version", tags=["status"], summary="The server's version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    created = int(time.time())

    @app.get("/v1/models", tags=["status"], summary="The names that the served model answers to")
    async def models(request: Request) -> Response:
        try:
            check_key(request, settings.api_key)
            names, info = served.names(), served.engine.info
        except Unauthorized as error:
            body = {"error": {"message": str(error), "type": "invalid_request_error", "code": "invalid_api_key"}}
            return JSONResponse(body, 401, {"www-authenticate": "Bearer"})
        except Loading as error:
            body = {"error": {"message": str(error), "type": "server_error", "code": "loading"}}
            return JSONResponse(body, 503, {"retry-after": str(error.retry_after_s)})
        context = min(info.max_tokens, settings.max_context)
        return JSONResponse(
            {"object": "list", "data": [_model_card(name, info.name, context, info.notice, created) for name in names]}
        )


def _model_card(name: str, root: str, context: int, notice: str | None, created: int) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rerankd",
        "root": root,
        "parent": None,
        "max_model_len": context,
    }
    if notice:
        card["warning"] = notice
    return card
