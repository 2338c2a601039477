"""One call, from its bytes to its reply: key → body → dialect → limits and prompts → engine → dialect."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rerankd.config import ServerSettings
from rerankd.errors import BodyTimeout, BodyTooLarge, InvalidRequest, MethodNotAllowed, RerankdError, Unavailable
from rerankd.rerank import finish, prepare
from rerankd.server.auth import check_key
from rerankd.server.body import read_as, read_json
from rerankd.server.limits import RateLimit
from rerankd.server.served import ServedModel
from rerankd.server.wire.dialect import Answer, Dialect, Explain
from rerankd.types import Logits, Ranking, RerankRequest

logger = logging.getLogger(__name__)

GIVEN_ID = re.compile(r"[\x21-\x7e]{1,200}")

UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
"""A line feed would begin another header; a server sends none of the others."""

MAX_WARNING_HEADER = 1000
"""Characters; proxies refuse long headers. The body and the log hold every warning."""


async def answer_call(
    request: Request, dialects: Sequence[Dialect[Any]], served: ServedModel, settings: ServerSettings, limit: RateLimit
) -> Response:
    """Never raises: what goes wrong is told in the dialect.

    Args:
        dialects: of this path; the body tells which one is spoken, the last one if no other claims it.
    """
    started = time.monotonic()
    dialect = dialects[-1]
    request_id = _given_id(request.headers.get("x-request-id")) or str(uuid.uuid4())
    try:
        limit.check(check_key(request, settings.api_key))
        value, warnings = await read_json(request, settings.max_body_mb, dialect.json_only)
        dialect = next((one for one in dialects if one.claims(value)), dialect)
        body, ignored = await asyncio.to_thread(read_as, value, dialect.body, settings.strict)
        call = dialect.parse(body)
        if "x-request-id" not in request.headers:
            request_id = _given_id(call.id) or request_id
        warnings += ignored + call.warnings + served.check_name(call.model, any_name=dialect.any_model)
        ranking = await _rank(call.request, served, request)
        warnings += ranking.warnings
        info = served.engine.info
        for warning in warnings:
            if warning != info.notice:  # that one was logged at start
                logger.warning("%s %s: %s", dialect.name, request_id, warning)
        answer = Answer(
            request_id,
            call.model or info.name,
            ranking,
            warnings,
            info,
            bool(call.explain),
            _prompts(call.explain, ranking, served),
            time.monotonic() - started,
        )
        headers = {"x-request-id": request_id, "x-rerankd-model": _header_text(info.name), **_warning_header(warnings)}
        return JSONResponse(dialect.reply(body, answer), headers=headers | dict(dialect.headers(answer)))
    except ClientDisconnect:
        logger.info("%s %s: the caller hung up", dialect.name, request_id)
        return Response(status_code=499)
    except RerankdError as error:
        return error_response(dialect, error, request_id)
    except Exception as error:
        logger.exception("%s %s: this is a bug", dialect.name, request_id)
        return error_response(dialect, RerankdError(f"This is a bug in rerankd ({type(error).__name__})."), request_id)


def _given_id(text: str | None) -> str | None:
    """The caller's own id for a request, if a header can carry it."""
    return text if text and GIVEN_ID.fullmatch(text) else None


def _prompts(explain: Explain | bool | None, ranking: Ranking, served: ServedModel) -> dict[int, str]:
    """The prompt that was asked for, as the model read it."""
    if not isinstance(explain, Explain) or explain.prompt is None:
        return {}
    if explain.prompt >= len(ranking.scores):
        raise InvalidRequest(
            f"explain.prompt is {explain.prompt}, and the last document's index is {len(ranking.scores) - 1}.",
            (("explain.prompt", f"Input should be less than {len(ranking.scores)}"),),
        )
    encoded = ranking.scores[explain.prompt].encoded
    assert encoded is not None
    return {explain.prompt: served.engine.text_of(encoded.token_ids)}


def error_response(dialect: Dialect[Any], error: RerankdError, request_id: str) -> Response:
    """The error in the dialect's own words."""
    status, body = dialect.error(error, request_id)
    headers = {"x-request-id": request_id}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, BodyTooLarge | BodyTimeout):
        headers["connection"] = "close"  # the rest of the body is not read
    return Response(None, status, headers) if body is None else JSONResponse(body, status, headers)


async def _rank(rerank_request: RerankRequest, served: ServedModel, request: Request) -> Ranking:
    engine = served.engine
    pairs = await asyncio.to_thread(prepare, rerank_request, engine)
    logits = await _unless_gone(engine.submit(pairs, priority=rerank_request.priority), request)
    return finish(rerank_request, pairs, logits, engine.info)


async def _unless_gone(future: Future[Logits], request: Request) -> Logits:
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
    return UNPRINTABLE.sub(" ", text.encode("ascii", "backslashreplace").decode())
