"""One call, from its bytes to its reply: key → body → dialect → limits and prompts → engine → dialect."""

from __future__ import annotations

import asyncio
import logging
import uuid
from concurrent.futures import Future
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rerankd.config import ServerSettings
from rerankd.errors import BodyTimeout, BodyTooLarge, MethodNotAllowed, RerankdError, Unavailable
from rerankd.rerank import finish, prepare
from rerankd.server.auth import check_key
from rerankd.server.body import read_body
from rerankd.server.served import ServedModel
from rerankd.server.wire.dialect import Answer, Dialect
from rerankd.types import Ranking, RerankRequest

logger = logging.getLogger(__name__)

MAX_WARNING_HEADER = 1000
"""Characters; proxies refuse long headers. The body and the log hold every warning."""


async def answer_call(
    request: Request, dialect: Dialect[Any], served: ServedModel, settings: ServerSettings
) -> Response:
    """Never raises: what goes wrong is told in the dialect."""
    request_id = str(uuid.uuid4())
    try:
        check_key(request, settings.api_key)
        body, ignored = await read_body(request, dialect.body, settings.max_body_mb, dialect.json_only)
        call = dialect.parse(body)
        warnings = ignored + call.warnings + served.check_name(call.model)
        ranking = await _rank(call.request, served, request)
        warnings += ranking.warnings
        info = served.engine.info
        for warning in warnings:
            if warning != info.notice:  # that one was logged at start
                logger.warning("%s %s: %s", dialect.name, request_id, warning)
        reply = dialect.reply(body, Answer(request_id, call.model or info.name, ranking, warnings))
        headers = {"x-request-id": request_id, "x-rerankd-model": _header_text(info.name), **_warning_header(warnings)}
        return JSONResponse(reply, headers=headers)
    except ClientDisconnect:
        logger.info("%s %s: the caller hung up", dialect.name, request_id)
        return Response(status_code=499)
    except RerankdError as error:
        return error_response(dialect, error, request_id)
    except Exception as error:
        logger.exception("%s %s: this is a bug", dialect.name, request_id)
        return error_response(dialect, RerankdError(f"This is a bug in rerankd ({type(error).__name__})."), request_id)


def error_response(dialect: Dialect[Any], error: RerankdError, request_id: str) -> Response:
    """The error in the dialect's own words."""
    status, body = dialect.error(error, request_id)
    headers = {"x-request-id": request_id}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = "POST"
    if isinstance(error, BodyTooLarge | BodyTimeout):
        headers["connection"] = "close"  # the rest of the body is not read
    return JSONResponse(body, status, headers)


async def _rank(rerank_request: RerankRequest, served: ServedModel, request: Request) -> Ranking:
    engine = served.engine
    pairs = await asyncio.to_thread(prepare, rerank_request, engine)
    logits = await _unless_gone(engine.submit(pairs), request)
    return finish(rerank_request, pairs, logits, engine.info)


async def _unless_gone(future: Future[list[float]], request: Request) -> list[float]:
    """Waits for the engine; frees its work if the caller hangs up first.

    Raises:
        ClientDisconnect: it did.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    result = asyncio.wrap_future(future)
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _warning_header(warnings: tuple[str, ...]) -> dict[str, str]:
    if not warnings:
        return {}
    text = _header_text("; ".join(warnings))
    if len(text) > MAX_WARNING_HEADER:
        text = f"{text[:MAX_WARNING_HEADER]}... ({len(warnings)} warnings)"
    return {"x-rerankd-warning": text}


def _header_text(text: str) -> str:
    """What a header can carry."""
    return text.encode("ascii", "backslashreplace").decode().replace("\n", " ").replace("\r", " ")
