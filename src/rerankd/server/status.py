"""What is asked about the server itself: health, names, tokens. Bodies as vLLM and OpenAI's models list have them."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from rerankd.config import ServerSettings
from rerankd.errors import Loading, RerankdError, Unauthorized
from rerankd.server.auth import check_key
from rerankd.server.served import ServedModel
from rerankd.version import __version__

LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}


class TokenizeBody(BaseModel):
    """A text. Control strings in it are read as text."""

    prompt: str
    model: str | None = None
    return_token_strs: bool | None = None


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class DetokenizeBody(BaseModel):
    """Token ids."""

    tokens: list[TokenId] = Field(max_length=100_000)
    model: str | None = None


def status_routes(served: ServedModel, settings: ServerSettings) -> APIRouter:
    """GET /health, /ping, /version, /load, /v1/models; POST /ping, /tokenize, /detokenize.

    The last two take processor time, so they are plain functions, which FastAPI runs beside its loop.
    """
    router = APIRouter(tags=["status"])
    created = int(time.time())

    @router.get("/health", summary="Whether requests can be answered", responses=LOADING)
    async def health() -> Response:
        return _health(served)

    @router.get("/ping", summary="The same, as SageMaker asks", responses=LOADING)
    @router.post("/ping", summary="The same, as SageMaker asks", responses=LOADING)
    async def ping() -> Response:
        return _health(served)

    @router.get("/version", summary="The server's version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @router.get("/load", summary="Requests that wait or run", responses=LOADING)
    async def load() -> Response:
        return JSONResponse({"server_load": served.engine.num_waiting if served.ready else 0})

    @router.get("/v1/models", summary="The names that the served model answers to", responses=KEYED)
    async def models(request: Request) -> Response:
        if problem := _refusal(request, served, settings):
            return problem
        info = served.engine.info
        context = min(info.max_tokens, settings.max_context)
        cards = [_model_card(name, info.name, context, info.notice, created) for name in served.names()]
        return JSONResponse({"object": "list", "data": cards})

    @router.post("/tokenize", summary="The tokens of a text", responses=KEYED)
    def tokenize(request: Request, body: TokenizeBody) -> Response:
        if problem := _refusal(request, served, settings):
            return problem
        engine = served.engine
        tokens = engine.token_ids_of(body.prompt)
        strings = [engine.text_of([token]) for token in tokens] if body.return_token_strs else None
        context = min(engine.info.max_tokens, settings.max_context)
        return JSONResponse({"count": len(tokens), "max_model_len": context, "tokens": tokens, "token_strs": strings})

    @router.post("/detokenize", summary="The text of tokens", responses=KEYED)
    def detokenize(request: Request, body: DetokenizeBody) -> Response:
        return _refusal(request, served, settings) or JSONResponse({"prompt": served.engine.text_of(body.tokens)})

    return router


def _health(served: ServedModel) -> Response:
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


def _refusal(request: Request, served: ServedModel, settings: ServerSettings) -> Response | None:
    """What a caller without a key, or while the model loads, is told, in OpenAI's shape."""
    try:
        check_key(request, settings.api_key)
        served.engine  # noqa: B018  # raises Loading
    except Unauthorized as error:
        return JSONResponse(
            _error(error, "invalid_request_error", "invalid_api_key"), 401, {"www-authenticate": "Bearer"}
        )
    except Loading as error:
        return JSONResponse(_error(error, "server_error", "loading"), 503, {"retry-after": str(error.retry_after_s)})
    return None


def _error(error: RerankdError, kind: str, code: str) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": kind, "code": code}}


def _model_card(name: str, root: str, context: int, notice: str | None, created: int) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rerankd",
        "root": root,
        "parent": None,
        "max_model_len": context,
        "permission": [_permission(name, created)],
    }
    if notice:
        card["warning"] = notice
    return card


def _permission(name: str, created: int) -> dict[str, Any]:
    """What vLLM's cards carry; the same for everybody."""
    return {
        "id": f"modelperm-{name}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
