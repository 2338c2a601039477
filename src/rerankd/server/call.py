"""One call, from its bytes to its reply: key → body → API → prompts → credit → scorer → API → charge."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from rerankd.accounts.decision import CallCost, Charge
from rerankd.admission.gate import Admitted, Gate
from rerankd.admission.identity import Identity
from rerankd.apis.base import Answer, Api, Call
from rerankd.apis.errors import NotJSON
from rerankd.apis.fields import Explain
from rerankd.calibration.apply import Cut, find, min_score_of
from rerankd.cascade import alone
from rerankd.errors import InferenceError, InvalidRequest, NothingInTime, RerankdError
from rerankd.highlighting import most_tokens
from rerankd.ranking import Prepared
from rerankd.server.access_log import describe
from rerankd.server.api_errors import error_response
from rerankd.server.beside import beside, beside_if_large
from rerankd.server.body import read_json
from rerankd.server.call_headers import deadline_ms_of, given_id, hops
from rerankd.server.cascade import SecondStage, TwoStages, rank_again, second_stage, sum_of
from rerankd.server.context import ServerContext
from rerankd.server.hang_up import unless_gone
from rerankd.server.held import share_of
from rerankd.server.json_text import WrittenJSON
from rerankd.server.metrics.calls import Work
from rerankd.server.reply_headers import (
    charge_headers,
    header_text,
    rate_limit_headers,
    relevance_header,
    upstream_headers,
    warning_header,
)
from rerankd.server.served import LocalScorer
from rerankd.server.validation import check_items, read_call
from rerankd.tracing import NO_SPAN, CallSpan
from rerankd.types import Logits, Ranking, TokenCounts

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _CallState:
    """The progress of one call, for its log line and its metrics."""

    request: Request
    api: Api[Any]
    request_id: str
    started: float = field(default_factory=time.monotonic)
    warnings: tuple[str, ...] = ()
    identity: Identity | None = None
    model: str | None = None
    encode_seconds: float = 0.0
    engine_seconds: float = 0.0
    is_counted: bool = False  # already, as one of the minute's calls
    work: Work | None = None
    charge: Charge | None = None
    span: CallSpan = NO_SPAN


async def answer_call(request: Request, apis: Sequence[Api[Any]], context: ServerContext) -> Response:
    """Answers a call. Never raises: every error is answered as the API of the call answers it.

    Args:
        apis: the APIs of this path; the last one takes a body that no other claims.
    """
    request_id = given_id(request.headers.get("x-request-id")) or str(uuid.uuid4())
    state = _CallState(request, apis[-1], request_id)
    with context.traces.call(request.headers) as state.span:
        return await _answer_and_report(state, apis, context)


async def _answer_and_report(state: _CallState, apis: Sequence[Api[Any]], context: ServerContext) -> Response:
    """Answers a call, and describes it to the log, the metrics and its trace."""
    failure: Exception | None = None
    try:
        response = await _answer(state, apis, context)
    except ClientDisconnect as error:
        failure = error
        response = Response(status_code=499)
    except RerankdError as error:
        failure = error
        response = error_response(state.api, error, state.request_id)
    except Exception as error:
        failure = RerankdError(f"This is a bug in rerankd ({type(error).__name__}).")
        logger.exception("%s %s: this is a bug", state.api.name, state.request_id)
        response = error_response(state.api, failure, state.request_id)
    _describe(state, response.status_code, failure)
    _keep(state, context, response.status_code, failure)
    context.metrics.observe(
        api=state.api.name,
        status=response.status_code,
        seconds=time.monotonic() - state.started,
        error=failure,
        model=state.model,
        work=None if failure else state.work,
        warnings=state.warnings,
        charge=state.charge,
    )
    if failure is not None:
        # Its traceback holds this frame, the frame the failure: the call's body would stay until the next collection.
        failure.__traceback__ = failure.__context__ = None
    return response


def _describe(state: _CallState, status: int, failure: Exception | None) -> None:
    """For the log and the trace; the trace has nothing that a caller chose."""
    error = type(failure).__name__ if failure else None
    documents = state.work.documents if state.work else None
    tokens = state.work.usage.text_tokens if state.work else None
    describe(
        state.request.scope,
        dialect=state.api.name,
        key=state.identity.key_name if state.identity else None,
        model=state.model,
        documents=documents,
        tokens=tokens,
        warnings=len(state.warnings),
        error=error,
        trace=state.span.trace_id,
    )
    route = state.request.scope["route"].path
    about = {"http.request.method": state.request.method, "http.route": route, "rerankd.dialect": state.api.name}
    counts = {"rerankd.documents": documents, "rerankd.tokens": tokens, "rerankd.warnings": len(state.warnings)}
    name = f"{state.request.method} {route}"
    state.span.end(name, status, error, **about, **counts, **{"rerankd.model": state.model})


async def _answer(state: _CallState, apis: Sequence[Api[Any]], context: ServerContext) -> Response:
    state.identity = await context.gate.identify(state.request)
    admitted = await context.gate.admit(state.identity)
    with context.gate.slot(admitted):
        call = await _read(state, apis, context, admitted)
        any_model = state.api.any_model or context.settings.any_model
        served, substituted = context.models.find(call.model, any_name=any_model)
        state.warnings += substituted
        with served.lease() as scorer:
            state.model = scorer.info.name
            names = context.models.names_of(served)
            context.gate.check_model(admitted, names, call.model)
            wanted = call.cascade, call.wants_sentences
            with second_stage(context.models, served, *wanted) as (second, ignored):
                state.warnings += ignored
                try:
                    return await _score(state, context, admitted, call, scorer, names, second)
                except InferenceError as error:
                    if second is None or second.required:
                        raise
                    state.warnings += (alone(scorer.info, error, second.scorer.info),)
                    state.model, state.is_counted = second.scorer.info.name, True
                    return await _score(state, context, admitted, call, second.scorer, second.names, None)


def _keep(state: _CallState, context: ServerContext, status: int, failure: Exception | None) -> None:
    """For the caller's list of calls."""
    caller = state.identity.caller if state.identity else None
    if context.calls is not None and caller is not None:
        about = (state.request_id, state.api.name, status, time.monotonic() - state.started, state.model)
        context.calls.add(caller, *about, failure or state.work, state.charge)


async def _read(state: _CallState, apis: Sequence[Api[Any]], context: ServerContext, admitted: Admitted) -> Call:
    request, settings, gate = state.request, context.settings, context.gate
    try:
        value, unused = await read_json(request, settings.max_body_mb, state.api.json_only)
    except NotJSON:
        await gate.count_large(admitted, request)
        raise
    given = {name: field is not None for name, field in value.items()}
    state.api = api = next((one for one in apis if one.claims(given)), state.api)
    state.is_counted = context.models.default.ready and await gate.count_large(admitted, request)
    check_items(value, api.body, api.max_documents)
    share_of(request.scope).add(api.own_bytes)
    read = partial(read_call, value, api, settings.strict)
    call, ignored = await (asyncio.to_thread(read) if api.waits else beside(request.scope, read))
    deadline_ms = call.deadline_ms or deadline_ms_of(request.headers) or settings.deadline_ms
    call = replace(call, deadline_ms=deadline_ms)
    share_of(request.scope).num_documents = len(call.documents)
    if "x-request-id" not in request.headers:
        state.request_id = given_id(call.id) or state.request_id
    state.warnings = unused + ignored + call.warnings
    return call


async def _score(
    state: _CallState,
    context: ServerContext,
    admitted: Admitted,
    call: Call,
    scorer: LocalScorer,
    names: Sequence[str],
    second: SecondStage | None,
) -> Response:
    gate, request = context.gate, state.request
    cut = _cut(call, context)
    prepared = await _prepare(state, context, admitted, call, scorer)
    cost = await _cost(state, gate, call, prepared)
    async with AsyncExitStack() as until:
        settlement = await until.enter_async_context(gate.reserve(admitted, names, cost, is_counted=state.is_counted))
        started = time.monotonic()
        ranking = await unless_gone(scorer.rank(prepared) if call.documents else _nothing(prepared), request)
        is_whole = (ranking.usage.text_tokens or 0) >= prepared.usage.text_tokens
        both: TwoStages | None = None
        if second is not None:
            both = await rank_again(
                *(second, prepared, ranking, cost),
                lambda names, cost: gate.reserve(admitted, names, cost, is_counted=True, is_part=True),
                until,
                lambda prepare, asked: beside(request.scope, partial(prepare, asked)),
                lambda ranked: unless_gone(ranked, request),
            )
            ranking = both.ranking
        if cut is not None:
            info = None if ranking.upstream else scorer.info
            ranking = cut.of(ranking, info, call.instruct, call.passages)
        if call.wants_sentences:
            ranking = await unless_gone(scorer.highlight(prepared, ranking), request)
        _note(state, call, prepared, ranking, started)
        used = TokenCounts(ranking.usage.total_tokens or 0, ranking.usage.text_tokens or 0)
        answer = _answer_to(call, state, scorer, ranking, used, second)
        response = await beside_if_large(request.scope, partial(_reply, state.api, answer))
        await settlement.settle(used.text_tokens - (both.tokens if both else 0), is_whole)
        state.charge = settlement.charge
        if both is not None and both.settlement is not None:
            await both.settlement.settle(both.tokens, both.is_whole)
            state.charge = sum_of(settlement.charge, both.settlement.charge)
    response.headers.update(rate_limit_headers(settlement.limits) | charge_headers(state.charge))
    return response


async def _prepare(
    state: _CallState, context: ServerContext, admitted: Admitted, call: Call, scorer: LocalScorer
) -> Prepared:
    """The prompts of the call, within its limits and the server's, with the caller's account as their owner."""
    started = time.monotonic()
    caller = admitted.identity.caller
    limits = replace(call.limits, max_instruct_tokens=context.settings.max_instruct_tokens)
    deadline = call.deadline if call.deadline_ms is None else state.started + call.deadline_ms / 1000
    owner, came_through = str(caller.account_id) if caller else "", hops(state.request.headers)
    bounded = replace(call, limits=limits, owner=owner, hops=came_through, deadline=deadline)
    try:
        async with asyncio.timeout(None if deadline is None else max(0.0, deadline - started)):
            prepared = await beside(state.request.scope, partial(scorer.prepare, bounded))
    except TimeoutError:
        raise NothingInTime from None
    state.encode_seconds = time.monotonic() - started
    state.span.part("prepare", started, started + state.encode_seconds)
    return prepared


async def _cost(state: _CallState, gate: Gate, call: Call, prepared: Prepared) -> CallCost:
    """The tokens to reserve for the call, and the fingerprint that recognises a repeated call."""
    fingerprint = b""
    if gate.charges:
        fingerprint = await beside(state.request.scope, partial(_fingerprint, state.api.name, call, prepared))
    highlighted = most_tokens(prepared) if call.wants_sentences else 0
    return CallCost(prepared.usage.text_tokens + highlighted, state.request_id, fingerprint, state.api.name)


def _note(state: _CallState, call: Call, prepared: Prepared, ranking: Ranking, started: float) -> None:
    """For the log, the metrics and the trace, and the warnings of the reply."""
    state.engine_seconds = time.monotonic() - started
    if ranking.queue_s is not None:
        state.span.part("queue", started, started + ranking.queue_s)
        state.span.part("compute", started + ranking.queue_s, started + state.engine_seconds)
    passages = prepared.num_split, sum(score.num_passages for score in ranking.scores), len(prepared.unread)
    unscored = sum(not score.scored for score in ranking.scores)
    again = sum(score.stage == 2 for score in ranking.scores)
    others = *passages, ranking.left_out, ranking.nothing_relevant, unscored, again
    state.work = Work(len(ranking.scores) - unscored, ranking.usage, prepared.num_truncated, *others)
    state.warnings += ranking.warnings
    state.warnings += _unexplained(call.explain, ranking)


async def _nothing(prepared: Prepared) -> Ranking:
    """The ranking of no documents: a search may find none, and other servers refuse such a call."""
    return prepared.finish(Logits(()))


def _cut(call: Call, context: ServerContext) -> Cut | None:
    """The threshold and the calibration of the call; None if it has neither."""
    if call.min_score is None and call.calibration is None:
        return None
    return Cut(min_score_of(call.min_score), find(context.calibrations, call.calibration))


def _reply(api: Api[Any], answer: Answer) -> Response:
    headers = {
        "x-request-id": answer.id,
        "x-rerankd-model": header_text(answer.ranking.model or answer.info.name),
        **upstream_headers(answer.ranking.upstream, answer.ranking.attempts),
        **warning_header(answer.warnings),
        **relevance_header(answer.ranking.nothing_relevant),
        **api.headers(answer),
    }
    return WrittenJSON(api.reply(answer), headers=headers)


def _fingerprint(api: str, call: Call, prepared: Prepared) -> bytes:
    """The SHA-256 of the sent texts, the prompts, and the form of the reply. Takes processor time."""
    request = prepared.request
    shape = ((api, prepared.info.name), call.model, request.instruct, request.top_n, call.explain)
    own = request.passages, call.shown_passages, call.min_score, call.calibration, call.deadline_ms, call.cascade
    digest = hashlib.sha256(repr((*shape, *own, len(request.documents))).encode())
    queries = [hashlib.sha256(query.encode()).digest() for query in request.queries]
    for query, document in zip(request.per_document(queries), request.documents, strict=True):
        digest.update(query)
        digest.update(hashlib.sha256(document.encode()).digest())
    for prompt in prepared.prompts:
        counts = f"{prompt.query_tokens} {prompt.document_tokens}"
        for part in (counts.encode(), array("q", prompt.token_ids).tobytes()):
            digest.update(hashlib.sha256(part).digest())
    return digest.digest()


def _answer_to(
    call: Call, state: _CallState, scorer: LocalScorer, ranking: Ranking, usage: TokenCounts, second: SecondStage | None
) -> Answer:
    info = scorer.info
    return Answer(
        state.request_id,
        call.model or info.name,
        ranking,
        usage,
        state.warnings,
        info,
        bool(call.explain) and _is_explained(ranking),
        _prompts(call.explain, ranking, scorer, second),
        time.monotonic() - state.started,
        state.encode_seconds,
        state.engine_seconds,
        call.show,
        call.shown_passages,
    )


def _is_explained(ranking: Ranking) -> bool:
    """Whether what was scored is known: this process scored it, or a rerankd that says so."""
    scored = (score for score in ranking.scores if score.scored)
    return all(score.prompt is not None or score.explanation is not None for score in scored)


def _unexplained(explain: Explain | bool | None, ranking: Ranking) -> tuple[str, ...]:
    """Warnings for explanations that the caller wants and this server does not have."""
    if explain and not _is_explained(ranking):
        return ("explain ignored: another server scored",)
    if isinstance(explain, Explain) and explain.prompt is not None and not _has_prompts(ranking):
        return ("explain.prompt ignored: another server scored",)
    return ()


def _has_prompts(ranking: Ranking) -> bool:
    return all(score.prompt is not None for score in ranking.scores)


def _prompts(
    explain: Explain | bool | None, ranking: Ranking, scorer: LocalScorer, second: SecondStage | None
) -> dict[int, str]:
    """The requested prompt, as the model reads it."""
    if not isinstance(explain, Explain) or explain.prompt is None or not _has_prompts(ranking):
        return {}
    if explain.prompt >= len(ranking.scores):
        raise InvalidRequest(
            f"explain.prompt is {explain.prompt}, and the last document's index is {len(ranking.scores) - 1}.",
            (("explain.prompt", f"Input should be less than {len(ranking.scores)}"),),
        )
    score = ranking.scores[explain.prompt]
    prompt = score.prompt
    assert prompt is not None, "This is a bug: a document without a prompt."
    scorer = second.scorer if second is not None and score.stage == 2 else scorer
    return {explain.prompt: scorer.prompts.decode(prompt.token_ids)}
