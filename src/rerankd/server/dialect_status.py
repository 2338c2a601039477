"""What clients of text-embeddings-inference, Infinity and Xinference ask about the server, in those servers' shapes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from rerankd.admission.identity import Authenticator
from rerankd.config import ServerSettings
from rerankd.errors import ModelNotFound, RerankdError, Unauthorized, Unavailable
from rerankd.server.served import ServedModel
from rerankd.version import __version__

LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}

LABELS = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def dialect_status_routes(served: ServedModel, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    """GET /info, and /tei, /tei/health, /tei/ping, /tei/info; /infinity/health and /infinity/models, also under the
    prefix; /xinference/v1/cluster/auth, /xinference/v1/models, /xinference/v1/models/{name}."""
    router = APIRouter(tags=["status"])
    router.include_router(_tei_routes(served, settings, auth))
    router.include_router(_xinference_routes(served, auth))
    for prefix in dict.fromkeys(("/infinity", settings.infinity_prefix)):
        router.include_router(_infinity_routes(prefix, served, settings, auth))
    return router


def _tei_routes(served: ServedModel, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/info", summary="The served model, as text-embeddings-inference tells it", responses=KEYED)
    @router.get("/tei/info", summary="The same", responses=KEYED)
    async def tei_info(request: Request) -> Response:
        try:
            await auth.identify(request)
            return JSONResponse(_info(served, settings))
        except Unauthorized:
            return Response(status_code=401, headers={"www-authenticate": "Bearer"})
        except Unavailable as error:
            return _unhealthy(error)

    @router.get("/tei", summary="Whether requests can be answered", responses=LOADING, response_class=Response)
    @router.get("/tei/health", summary="The same", responses=LOADING, response_class=Response)
    @router.get("/tei/ping", summary="The same", responses=LOADING, response_class=Response)
    async def tei_health() -> Response:
        try:
            served.engine  # noqa: B018  # raises Loading
        except Unavailable as error:
            return _unhealthy(error)
        return Response()

    return router


def _unhealthy(error: Unavailable) -> Response:
    body = {"error": str(error), "error_type": "Unhealthy"}
    return JSONResponse(body, 503, {"retry-after": str(error.retry_after_s)})


def _info(served: ServedModel, settings: ServerSettings) -> dict[str, Any]:
    """Raises Loading. Where this server has no such limit, the field is null."""
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
        "max_client_batch_size": settings.max_call_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _infinity_routes(prefix: str, served: ServedModel, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    router = APIRouter(prefix=prefix)
    created = int(time.time())

    @router.get("/models", summary="The served model, as Infinity tells it", responses=KEYED)
    async def infinity_models(request: Request) -> Response:
        try:
            await auth.identify(request)
            return JSONResponse({"data": [_model(served, settings, created)], "object": "list"})
        except Unauthorized:
            return JSONResponse({"detail": "Unauthorized"}, 401, {"www-authenticate": "Bearer"})
        except Unavailable as error:
            return _loading(error)

    @router.get("/health", summary="The time, if requests can be answered", responses=LOADING)
    async def infinity_health() -> Response:
        try:
            served.engine  # noqa: B018  # raises Loading
        except Unavailable as error:
            return _loading(error)
        return JSONResponse({"unix": time.time()})

    return router


def _loading(error: Unavailable) -> Response:
    told = {"message": str(error), "type": "service_unavailable", "param": None, "code": 503}
    return JSONResponse({"error": told}, 503, {"retry-after": str(error.retry_after_s)})


def _model(served: ServedModel, settings: ServerSettings, created: int) -> dict[str, Any]:
    """Raises Loading."""
    engine = served.engine
    waiting = engine.num_queued
    return {
        "id": engine.info.name,
        "stats": {"queue_fraction": waiting / settings.max_queue, "queue_absolute": waiting},
        "object": "model",
        "owned_by": "infinity",
        "created": created,
        "backend": "torch",
        "capabilities": ["rerank"],
    }


def _xinference_routes(served: ServedModel, auth: Authenticator) -> APIRouter:
    """Its client asks these before it sends the first request: whether to send its key, and what a model is for."""
    router = APIRouter(prefix="/xinference/v1")

    @router.get("/cluster/auth", summary="Whether a key is asked for, as Xinference tells it")
    async def xinference_auth() -> dict[str, bool]:
        return {"auth": auth.needs_key}

    @router.get("/models", summary="The names of the served model, as Xinference tells them", responses=KEYED)
    async def xinference_models(request: Request) -> Response:
        try:
            await auth.identify(request)
            data = [{"id": name, "object": "model", **_xinference_model(name, served)} for name in served.names()]
            return JSONResponse({"object": "list", "data": data})
        except (Unauthorized, Unavailable) as error:
            return _xinference_error(error)

    @router.get(
        "/models/{name:path}",
        summary="What a model is, as Xinference tells it",
        responses={400: {"description": "A model that is not served here."}, **KEYED},
    )
    async def xinference_model(name: str, request: Request) -> Response:
        try:
            await auth.identify(request)
            served.check_name(name, any_name=False)
            return JSONResponse(_xinference_model(name, served))
        except (Unauthorized, Unavailable, ModelNotFound) as error:
            return _xinference_error(error)

    return router


def _xinference_model(name: str, served: ServedModel) -> dict[str, Any]:
    """Raises Loading."""
    return {"model_type": "rerank", "model_uid": name, "model_name": served.engine.info.name, "replica": 1}


def _xinference_error(error: RerankdError) -> Response:
    status, headers = 400, {}
    if isinstance(error, Unauthorized):
        status, headers = 401, {"www-authenticate": "Bearer"}
    elif isinstance(error, Unavailable):
        status, headers = 503, {"retry-after": str(error.retry_after_s)}
    return JSONResponse({"detail": str(error)}, status, headers)
