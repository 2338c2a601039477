"""GET /health, /readyz, /livez, /startupz, /ping, /version, /load and /v1/cluster/auth: the state of the server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse, PlainTextResponse

from rerankd.apis.openai import LOADING
from rerankd.server.context import Context
from rerankd.server.models import Models, Served
from rerankd.version import __version__

router = APIRouter(tags=["status"])

STUCK_S = 600
"""A batch that runs for longer never ends: the largest model takes some ten seconds for one on a slow processor."""

STUCK: dict[int | str, dict[str, Any]] = {503: {"description": "A model has computed one batch for ten minutes."}}


@router.get("/health", summary="Whether requests can be answered", responses=LOADING)
@router.get("/readyz", summary="The same, as Kubernetes names it", responses=LOADING)
async def health(context: Context) -> Response:
    return _health(context.models, context.gate.troubles)


@router.get("/ping", summary="The same, as SageMaker asks", responses=LOADING)
@router.post("/ping", summary="The same, as SageMaker asks", responses=LOADING)
async def ping(context: Context) -> Response:
    return _health(context.models, context.gate.troubles)


@router.get(
    "/livez",
    summary="Whether the process can go on; also while the model loads",
    response_class=PlainTextResponse,
    responses=STUCK,
)
async def live(context: Context) -> Response:
    for served in context.models:
        if served.ready and (seconds := served.engine.seconds_in_batch) > STUCK_S:
            return PlainTextResponse(f"stuck: one batch has run for {seconds:.0f} s", 503)
    return PlainTextResponse("ok")


@router.get(
    "/startupz",
    summary="Whether every model has loaded; also while the server stops",
    response_class=PlainTextResponse,
    responses=LOADING,
)
async def started(context: Context) -> Response:
    return PlainTextResponse("ok") if context.models.ready else PlainTextResponse("loading", 503)


@router.get("/version", summary="The server's version")
async def version() -> dict[str, str]:
    return {"version": __version__}


@router.get("/load", summary="Requests that wait or run", responses=LOADING)
async def load(context: Context) -> Response:
    queued = sum(served.engine.num_queued for served in context.models if served.ready)
    return JSONResponse({"server_load": queued})


@router.get("/v1/cluster/auth", summary="Whether a key is asked for, as Xinference's clients ask first")
async def cluster_auth(context: Context) -> dict[str, bool]:
    return {"auth": context.auth.needs_key}


def _health(models: Models, troubles: Mapping[str, str]) -> Response:
    """troubles: the state of each part that does not answer, so that calls are refused."""
    if models.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    if models.failure is not None:
        return JSONResponse({"status": "failed"}, 503)
    if loading := next((served for served in models if not served.ready), None):
        stage, share = loading.progress
        body = {"status": "loading", "stage": stage, "progress": round(share, 3)}
        return JSONResponse(body, 503, {"retry-after": "1"})
    troubles = {**troubles, **_missing_replicas(models)}
    if troubles:
        return JSONResponse({"status": "unavailable", **troubles}, 503, {"retry-after": "5"})
    body = {"status": "ok", **_state(models.default), "unix": time.time()}  # unix: what Infinity's clients read
    if len(models.all) > 1:
        body["models"] = [_state(served) for served in models]
    return JSONResponse(body)


def _missing_replicas(models: Models) -> dict[str, str]:
    found = [served.engine.stats.replicas for served in models]
    return {"replicas": "none runs"} if any(one is not None and one.refuses for one in found) else {}


def _state(served: Served) -> dict[str, Any]:
    info = served.scorer.info
    return {
        "model": info.name,
        "device": info.device,
        "dtype": info.dtype,
        "prompt_id": info.prompt_id,
        "warning": info.notice,
        "fallback": info.is_fallback,
    }
