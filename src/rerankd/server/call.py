"""One call, from its bytes to its reply: key → body → dialect → prompts → credit → engine → dialect → charge."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import uuid
from array import array
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rerankd.accounts.decision import CallCost, Charge
from rerankd.apis.base import Answer, Api, Call, Explain
from rerankd.apis.errors import BodyTimeout, BodyTooLarge, MethodNotAllowed, NotJSON, UnsupportedEncoding
from rerankd.config import ServerSettings
from rerankd.errors import InvalidRequest, OutOfCredit, RateLimited, RerankdError, Unavailable
from rerankd.rerank import finish, prepare, usage_of
from rerankd.server.access_log import describe
from rerankd.server.admission import Admission, Pass
from rerankd.server.beside import beside
from rerankd.server.body import read_as, read_json
from rerankd.server.metrics import Metrics
from rerankd.server.served import Engine, ServedModel
from rerankd.server.written import WrittenJSON
from rerankd.types import EncodedPair, Logits, Ranking

logger = logging.getLogger(__name__)

GIVEN_ID = re.compile(r"[\x21-\x7e]{1,200}")

UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
"""A line feed would begin another header; a server sends none of the others."""

MAX_WARNING_HEADER = 1000
"""Characters; proxies refuse long headers. The body holds every warning. The log holds none: some quote the caller."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every call of a server shares."""

    settings: ServerSettings
    served: ServedModel
    admission: Admission
    metrics: Metrics


@dataclass(slots=True)
class _Exchange:
    """What is known of one call so far."""

    request: Request
    dialect: Api[Any]
    request_id: str
    started: float = field(default_factory=time.monotonic)
    warnings: tuple[str, ...] = ()
    key: str | None = None
    model: str | None = None
    encode_seconds: float = 0.0
    engine_seconds: float = 0.0
    ranking: Ranking | None = None
    charge: Charge | None = None


async def answer_call(request: Request, dialects: Sequence[Api[Any]], around: Surroundings) -> Response:
    """Never raises: what goes wrong is told in the dialect.

    Args:
        dialects: of this path; the body tells which one is spoken, the last one if no other claims it.
    """
    request_id = _given_id(request.headers.get("x-request-id")) or str(uuid.uuid4())
    exchange = _Exchange(request, dialects[-1], request_id)
    failure: Exception | None = None
    try:
        response = await _answer(exchange, dialects, around)
    except ClientDisconnect as error:
        failure = error
        response = Response(status_code=499)
    except RerankdError as error:
        failure = error
        response = error_response(exchange.dialect, error, exchange.request_id)
    except Exception as error:
        failure = RerankdError(f"This is a bug in rerankd ({type(error).__name__}).")
        logger.exception("%s %s: this is a bug", exchange.dialect.name, exchange.request_id)
        response = error_response(exchange.dialect, failure, exchange.request_id)
    describe(
        request.scope,
        dialect=exchange.dialect.name,
        key=exchange.key,
        model=exchange.model,
        documents=len(exchange.ranking.scores) if exchange.ranking else None,
        tokens=exchange.ranking.usage.text_tokens if exchange.ranking else None,
        warnings=len(exchange.warnings),
        error=type(failure).__name__ if failure else None,
    )
    around.metrics.observe(
        dialect=exchange.dialect.name,
        status=response.status_code,
        seconds=time.monotonic() - exchange.started,
        error=failure,
        ranking=None if failure else exchange.ranking,
        warnings=exchange.warnings,
        charge=exchange.charge,
    )
    if failure is not None:
        # Its traceback holds this frame, the frame the failure: the call's body would stay until the next collection.
        failure.__traceback__ = failure.__context__ = None
    return response


async def _answer(exchange: _Exchange, dialects: Sequence[Api[Any]], around: Surroundings) -> Response:
    entered = await around.admission.enter(exchange.request)
    exchange.key = entered.guest.key_name
    with around.admission.at_once(entered):
        return await _answer_entered(exchange, dialects, around, entered)


async def _answer_entered(
    exchange: _Exchange, dialects: Sequence[Api[Any]], around: Surroundings, entered: Pass
) -> Response:
    request, settings, served, admission = exchange.request, around.settings, around.served, around.admission
    try:
        value, unused = await read_json(request, settings.max_body_mb, exchange.dialect.json_only)
    except NotJSON:
        await admission.count(entered, request)
        raise
    dialect = next((one for one in dialects if one.claims(value)), exchange.dialect)
    exchange.dialect = dialect
    is_counted = served.ready and await admission.count(entered, request)
    body, ignored = await beside(request.scope, read_as, value, dialect.body, settings.strict)
    call = await beside(request.scope, dialect.parse, body)
    if "x-request-id" not in request.headers:
        exchange.request_id = _given_id(call.id) or exchange.request_id
    exchange.warnings = unused + ignored + call.warnings
    exchange.warnings += served.check_name(call.model, any_name=dialect.any_model or settings.any_model)
    engine = served.engine  # of the whole call, also if another takes its place meanwhile
    exchange.model = engine.info.name
    admission.permit(entered, call.model)
    call = _bounded(call, settings)
    started = time.monotonic()
    pairs = await beside(request.scope, prepare, call.request, engine)
    exchange.encode_seconds = time.monotonic() - started
    fingerprint = b""
    if admission.charges:
        fingerprint = await beside(request.scope, _fingerprint, (dialect.name, engine.info.name), call, pairs)
    cost = CallCost(usage_of(pairs).text_tokens, exchange.request_id, fingerprint, dialect.name)
    async with admission.running(entered, cost, is_counted=is_counted) as bill:
        started = time.monotonic()
        submit = partial(engine.submit, priority=call.request.priority, owner=_owner(entered))
        logits = await _unless_gone(await beside(request.scope, submit, pairs), request)
        exchange.engine_seconds = time.monotonic() - started
        exchange.ranking = finish(call.request, pairs, logits, engine.info)
        exchange.warnings += exchange.ranking.warnings
        response = _reply(dialect, body, _answer_to(call, exchange, engine))
        await bill.settle()
        exchange.charge = bill.charge
    response.headers.update(bill.headers)
    return response


def _bounded(call: Call, settings: ServerSettings) -> Call:
    """With the bounds that hold on every surface."""
    limits = replace(call.request.limits, max_instruct_tokens=settings.max_instruct_tokens)
    return replace(call, request=replace(call.request, limits=limits))


def _owner(entered: Pass) -> str:
    """Whose calls may be answered from what this one computes: the account's; everybody's where there are none."""
    return str(entered.guest.caller.account_id) if entered.guest.caller else ""


def _reply(dialect: Api[Any], body: Any, answer: Answer) -> Response:
    headers = {
        "x-request-id": answer.id,
        "x-rerankd-model": _header_text(answer.info.name),
        **warning_header(answer.warnings),
        **dialect.headers(answer),
    }
    return WrittenJSON(dialect.reply(body, answer), headers=headers)


def _fingerprint(where: tuple[str, ...], call: Call, pairs: Sequence[EncodedPair]) -> bytes:
    """Of what is sent, of what is scored, and of what shapes the answer: calls that have the same one are the same.

    Takes processor time.

    Args:
        where: the dialect and the model that scores.
    """
    request = call.request
    shape = (where, call.model, request.instruct, request.top_n, call.explain, len(pairs))
    digest = hashlib.sha256(repr(shape).encode())
    # Each query once: there may be a long one, and ten thousand documents.
    queries = {query: hashlib.sha256(query.encode()).digest() for query in {sent.query for sent in request.pairs}}
    for sent, pair in zip(request.pairs, pairs, strict=True):
        counts = f"{pair.query_tokens} {pair.document_tokens}"
        token_ids = array("q", pair.token_ids).tobytes()
        digest.update(queries[sent.query])
        for part in (sent.document.encode(), counts.encode(), token_ids):
            digest.update(hashlib.sha256(part).digest())
    return digest.digest()


def _answer_to(call: Call, exchange: _Exchange, engine: Engine) -> Answer:
    assert exchange.ranking is not None
    info = engine.info
    return Answer(
        exchange.request_id,
        call.model or info.name,
        exchange.ranking,
        exchange.warnings,
        info,
        bool(call.explain),
        _prompts(call.explain, exchange.ranking, engine),
        time.monotonic() - exchange.started,
        exchange.encode_seconds,
        exchange.engine_seconds,
    )


def _given_id(text: str | None) -> str | None:
    """The caller's own id for a request, if a header can carry it."""
    return text if text and GIVEN_ID.fullmatch(text) else None


def _prompts(explain: Explain | bool | None, ranking: Ranking, engine: Engine) -> dict[int, str]:
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
    return {explain.prompt: engine.text_of(encoded.token_ids)}


def error_response(dialect: Api[Any], error: RerankdError, request_id: str) -> Response:
    """The error in the dialect's own words."""
    status, body = dialect.error(error, request_id)
    headers = {"x-request-id": request_id}
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, RateLimited):
        headers |= error.headers
    if isinstance(error, OutOfCredit):
        headers["x-should-retry"] = "false"  # read by the openai SDK, where this is told with 429
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if isinstance(error, BodyTooLarge | BodyTimeout):
        headers["connection"] = "close"  # the rest of the body is not read
    if isinstance(error, UnsupportedEncoding):
        headers["accept-encoding"] = ", ".join(error.read)  # as RFC 9110 has it
    return Response(None, status, headers) if body is None else JSONResponse(body, status, headers)


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


def warning_header(warnings: tuple[str, ...]) -> dict[str, str]:
    """What was not done as asked, where every client can see it."""
    if not warnings:
        return {}
    text = _header_text("; ".join(warnings))
    if len(text) > MAX_WARNING_HEADER:
        text = f"{text[:MAX_WARNING_HEADER]}... ({len(warnings)} warnings)"
    return {"x-rerankd-warning": text}


def _header_text(text: str) -> str:
    """What a header can carry."""
    return UNPRINTABLE.sub(" ", text.encode("ascii", "backslashreplace").decode())
