"""What the clients of text-embeddings-inference and Infinity ask about the server itself, in those servers' shapes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from rerankd.config import ServerSettings
from rerankd.errors import Loading, Unauthorized
from rerankd.server.auth import check_key
from rerankd.server.served import ServedModel
from rerankd.version import __version__

LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}

LABELS = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}

MIN_TEXT_BYTES = 3
"""Of an empty text and its comma in a body."""


def dialect_status_routes(served: ServedModel, settings: ServerSettings) -> APIRouter:
    """GET /info, and /tei, /tei/health, /tei/info; GET /infinity/health, /infinity/models, also under the prefix."""
    router = APIRouter(tags=["status"])
    router.include_router(_tei_routes(served, settings))
    for prefix in dict.fromkeys(("/infinity", settings.infinity_prefix)):
        router.include_router(_infinity_routes(prefix, served, settings))
    return router


def _tei_routes(served: ServedModel, settings: ServerSettings) -> APIRouter:
    router = APIRouter()

    @router.get("/info", summary="The served model, as text-embeddings-inference tells it", responses=KEYED)
    @router.get("/tei/info", summary="The same", responses=KEYED)
    async def tei_info(request: Request) -> Response:
        try:
            check_key(request, settings.api_key)
            return JSONResponse(_info(served, settings))
        except Unauthorized:
            return Response(status_code=401, headers={"www-authenticate": "Bearer"})
        except Loading as error:
            return _unhealthy(error)

    @router.get("/tei", summary="Whether requests can be answered, without a body", responses=LOADING)
    @router.get("/tei/health", summary="The same", responses=LOADING)
    async def tei_health() -> Response:
        try:
            served.engine  # noqa: B018  # raises Loading
        except Loading as error:
            return _unhealthy(error)
        return Response()

    return router


def _unhealthy(error: Loading) -> Response:
    body = {"error": str(error), "error_type": "Unhealthy"}
    return JSONResponse(body, 503, {"retry-after": str(error.retry_after_s)})


def _info(served: ServedModel, settings: ServerSettings) -> dict[str, Any]:
    """Raises Loading. Where this server has no such limit, the field holds what a body can hold at most, or null."""
    info = served.engine.info
    return {
        "model_id": info.name,
        "model_sha": None,
        "model_dtype": info.dtype,
        "served_model_name": info.name,
        "model_type": {"reranker": LABELS},
        "max_concurrent_requests": settings.max_queue,
        "max_input_length": min(info.max_tokens, settings.max_context),
        "max_batch_tokens": served.engine.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_body_mb * 1_000_000 // MIN_TEXT_BYTES,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _infinity_routes(prefix: str, served: ServedModel, settings: ServerSettings) -> APIRouter:
    router = APIRouter(prefix=prefix)
    created = int(time.time())

    @router.get("/models", summary="The served model, as Infinity tells it", responses=KEYED)
    async def infinity_models(request: Request) -> Response:
        try:
            check_key(request, settings.api_key)
            return JSONResponse({"data": [_model(served, settings, created)], "object": "list"})
        except Unauthorized:
            return JSONResponse({"detail": "Unauthorized"}, 401, {"www-authenticate": "Bearer"})
        except Loading as error:
            return _loading(error)

    @router.get("/health", summary="The time, if requests can be answered", responses=LOADING)
    async def infinity_health() -> Response:
        try:
            served.engine  # noqa: B018  # raises Loading
        except Loading as error:
            return _loading(error)
        return JSONResponse({"unix": time.time()})

    return router


def _loading(error: Loading) -> Response:
    told = {"message": str(error), "type": "service_unavailable", "param": None, "code": 503}
    return JSONResponse({"error": told}, 503, {"retry-after": str(error.retry_after_s)})


def _model(served: ServedModel, settings: ServerSettings, created: int) -> dict[str, Any]:
    """Raises Loading."""
    engine = served.engine
    waiting = engine.num_waiting
    return {
        "id": engine.info.name,
        "stats": {"queue_fraction": waiting / settings.max_queue, "queue_absolute": waiting},
        "object": "model",
        "owned_by": "infinity",
        "created": created,
        "backend": "torch",
        "capabilities": ["rerank"],
    }
