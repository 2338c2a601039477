"""What clients of text-embeddings-inference, Infinity and Xinference ask about the server, in those servers' shapes."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from rerankd.admission.identity import Authenticator
from rerankd.config import ServerSettings
from rerankd.errors import ModelNotFound, RerankdError, Unauthorized, Unavailable
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.version import __version__

LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}

LABELS = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def dialect_status_routes(models: Models, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    """GET /info, and /tei, /tei/health, /tei/ping, /tei/info; /infinity/health and /infinity/models, also under the
    prefix; /xinference/v1/cluster/auth, /xinference/v1/models, /xinference/v1/models/{name}."""
    router = APIRouter(tags=["status"])
    router.include_router(_tei_routes(models, settings, auth))
    router.include_router(_xinference_routes(models, auth))
    for prefix in dict.fromkeys(("/infinity", settings.infinity_prefix)):
        router.include_router(_infinity_routes(prefix, models, settings, auth))
    return router


def _tei_routes(models: Models, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    router = APIRouter()

    @router.get("/info", summary="The served model, as text-embeddings-inference tells it", responses=KEYED)
    @router.get("/tei/info", summary="The same", responses=KEYED)
    async def tei_info(request: Request) -> Response:
        try:
            await auth.identify(request)
            return JSONResponse(_info(models, settings))
        except Unauthorized:
            return Response(status_code=401, headers={"www-authenticate": "Bearer"})
        except Unavailable as error:
            return _unhealthy(error)

    @router.get("/tei", summary="Whether requests can be answered", responses=LOADING, response_class=Response)
    @router.get("/tei/health", summary="The same", responses=LOADING, response_class=Response)
    @router.get("/tei/ping", summary="The same", responses=LOADING, response_class=Response)
    async def tei_health() -> Response:
        try:
            models.default.engine  # noqa: B018  # raises Loading
        except Unavailable as error:
            return _unhealthy(error)
        return Response()

    return router


def _unhealthy(error: Unavailable) -> Response:
    body = {"error": str(error), "error_type": "Unhealthy"}
    return JSONResponse(body, 503, {"retry-after": str(error.retry_after_s)})


def _info(models: Models, settings: ServerSettings) -> dict[str, Any]:
    """Raises Loading. Where this server has no such limit, the field is null."""
    info = models.default.engine.info
    return {
        "model_id": info.name,
        "model_sha": None,
        "model_dtype": info.dtype,
        "served_model_name": info.name,
        "model_type": {"reranker": LABELS},
        "max_concurrent_requests": settings.max_queue,
        "max_input_length": min(info.max_tokens, settings.max_context),
        "max_batch_tokens": models.default.engine.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_call_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _infinity_routes(prefix: str, models: Models, settings: ServerSettings, auth: Authenticator) -> APIRouter:
    router = APIRouter(prefix=prefix)
    created = int(time.time())

    @router.get("/models", summary="The served model, as Infinity tells it", responses=KEYED)
    async def infinity_models(request: Request) -> Response:
        try:
            await auth.identify(request)
            return JSONResponse({"data": _cards(models, settings, created), "object": "list"})
        except Unauthorized:
            return JSONResponse({"detail": "Unauthorized"}, 401, {"www-authenticate": "Bearer"})
        except Unavailable as error:
            return _loading(error)

    @router.get("/health", summary="The time, if requests can be answered", responses=LOADING)
    async def infinity_health() -> Response:
        try:
            models.default.engine  # noqa: B018  # raises Loading
        except Unavailable as error:
            return _loading(error)
        return JSONResponse({"unix": time.time()})

    return router


def _loading(error: Unavailable) -> Response:
    told = {"message": str(error), "type": "service_unavailable", "param": None, "code": 503}
    return JSONResponse({"error": told}, 503, {"retry-after": str(error.retry_after_s)})


def _cards(models: Models, settings: ServerSettings, created: int) -> list[dict[str, Any]]:
    """Raises Loading."""
    return [_card(served, settings, created) for served in models]


def _card(served: ServedModel, settings: ServerSettings, created: int) -> dict[str, Any]:
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


def _xinference_routes(models: Models, auth: Authenticator) -> APIRouter:
    """Its client asks these before it sends the first request: whether to send its key, and what a model is for."""
    router = APIRouter(prefix="/xinference/v1")

    @router.get("/cluster/auth", summary="Whether a key is asked for, as Xinference tells it")
    async def xinference_auth() -> dict[str, bool]:
        return {"auth": auth.needs_key}

    @router.get("/models", summary="The names of the served model, as Xinference tells them", responses=KEYED)
    async def xinference_models(request: Request) -> Response:
        try:
            await auth.identify(request)
            models.default.scorer  # noqa: B018  # raises Loading
            named = models.names().items()
            data = [{"id": name, "object": "model", **_xinference_model(name, served)} for name, served in named]
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
            served, _ = models.find(name)
            return JSONResponse(_xinference_model(name, served))
        except (Unauthorized, Unavailable, ModelNotFound) as error:
            return _xinference_error(error)

    return router


def _xinference_model(name: str, served: ServedModel) -> dict[str, Any]:
    """Raises Loading."""
    return {"model_type": "rerank", "model_uid": name, "model_name": served.scorer.info.name, "replica": 1}


def _xinference_error(error: RerankdError) -> Response:
    status, headers = 400, {}
    if isinstance(error, Unauthorized):
        status, headers = 401, {"www-authenticate": "Bearer"}
    elif isinstance(error, Unavailable):
        status, headers = 503, {"retry-after": str(error.retry_after_s)}
    return JSONResponse({"detail": str(error)}, status, headers)
