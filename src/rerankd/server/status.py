"""What is asked about the server itself: health, names, prices, tokens. Bodies as vLLM and OpenAI have them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse

from rerankd.admission.identity import Authenticator
from rerankd.apis.base import ErrorTable
from rerankd.apis.errors import BodyTimeout, BodyTooLarge, UnsupportedEncoding
from rerankd.apis.fields import ListOf
from rerankd.config import ServerSettings
from rerankd.errors import InvalidRequest, ModelNotFound, RerankdError, Unauthorized, Unavailable
from rerankd.prices import Price, PriceFile
from rerankd.server.beside import beside
from rerankd.server.body import read_as, read_json
from rerankd.server.call import warning_header
from rerankd.server.models import Models
from rerankd.server.openapi import STATUS_MEANS
from rerankd.server.served import LocalScorer, ServedModel
from rerankd.server.written import WrittenJSON
from rerankd.version import __version__

LOADING: dict[int | str, dict[str, Any]] = {503: {"description": "Loading."}}
KEYED: dict[int | str, dict[str, Any]] = {401: {"description": "No key, or a wrong one."}, **LOADING}
READING: dict[int | str, dict[str, Any]] = {
    status: {"description": STATUS_MEANS[status]} for status in (400, 401, 408, 413, 415, 503)
}


Body = TypeVar("Body", bound=BaseModel)


class _Words(NamedTuple):
    type: str
    code: str


ERRORS = ErrorTable(
    {BodyTooLarge: 413},
    {
        400: _Words("invalid_request_error", "invalid_parameter"),
        401: _Words("invalid_request_error", "invalid_api_key"),
        404: _Words("invalid_request_error", "model_not_found"),
        408: _Words("invalid_request_error", "request_timeout"),
        413: _Words("invalid_request_error", "request_too_large"),
        415: _Words("invalid_request_error", "unsupported_encoding"),
        503: _Words("server_error", "unavailable"),
    },
)
"""In OpenAI's shape."""


class TokenizeBody(BaseModel):
    """A text. Control strings in it are read as text."""

    model_config = ConfigDict(extra="allow")

    prompt: str
    model: str | None = None
    return_token_strs: bool | None = None


TokenId = Annotated[int, Field(ge=0, lt=2**31)]


class DetokenizeBody(BaseModel):
    """Token ids."""

    model_config = ConfigDict(extra="allow")

    tokens: ListOf[TokenId]
    model: str | None = None


def status_routes(
    models: Models,
    settings: ServerSettings,
    auth: Authenticator,
    prices: PriceFile,
    troubles: Callable[[], Mapping[str, str]],
) -> APIRouter:
    """GET /health, /livez, /ping, /version, /load, /v1/models, /v1/models/{name},
    /v1/cluster/auth, /v1/rates; POST /ping, /tokenize, /detokenize."""
    router = APIRouter(tags=["status"])
    created = int(time.time())

    @router.get("/health", summary="Whether requests can be answered", responses=LOADING)
    async def health() -> Response:
        return _health(models, troubles())

    @router.get("/ping", summary="The same, as SageMaker asks", responses=LOADING)
    @router.post("/ping", summary="The same, as SageMaker asks", responses=LOADING)
    async def ping() -> Response:
        return _health(models, troubles())

    @router.get(
        "/livez", summary="Whether the process answers; also while the model loads", response_class=PlainTextResponse
    )
    async def live() -> Response:
        return PlainTextResponse("ok")

    @router.get("/version", summary="The server's version")
    async def version() -> dict[str, str]:
        return {"version": __version__}

    @router.get("/load", summary="Requests that wait or run", responses=LOADING)
    async def load() -> Response:
        return JSONResponse({"server_load": sum(served.engine.num_queued for served in models if served.ready)})

    @router.get("/v1/models", summary="The names that the served models answer to", responses=KEYED)
    async def model_cards(request: Request) -> Response:
        try:
            await auth.identify(request)
            return JSONResponse({"object": "list", "data": [card(*named) for named in known_names().items()]})
        except (Unauthorized, Unavailable) as error:
            return _refusal(error)

    def known_names() -> Mapping[str, ServedModel]:
        models.default.scorer  # noqa: B018  # raises Loading
        return models.names()

    def card(name: str, served: ServedModel) -> dict[str, Any]:
        info, price_list = served.scorer.info, prices.current()
        context = min(info.max_tokens, settings.max_context)
        model = _model_card(name, info.name, context, info.notice, created)
        price = price_list.of(models.names_of(served))
        return {**model, "rerankd": _price(price, settings)} if price in price_list.prices else model

    @router.get(
        "/v1/models/{name:path}",
        summary="What a model is, as OpenAI and Xinference tell it",
        responses={404: {"description": STATUS_MEANS[404]}, **KEYED},
    )
    async def model(name: str, request: Request) -> Response:
        try:
            await auth.identify(request)
            served, _ = models.find(name, any_name=settings.any_model)
            return JSONResponse(card(name, served))
        except (Unauthorized, Unavailable, ModelNotFound) as error:
            return _refusal(error)

    @router.get("/v1/cluster/auth", summary="Whether a key is asked for, as Xinference's clients ask first")
    async def cluster_auth() -> dict[str, bool]:
        return {"auth": auth.needs_key}

    @router.get("/v1/rates", summary="The price list: what each model costs and allows")
    async def price_list() -> Response:
        card = prices.current()
        data = [_price(price, settings) for price in card.prices]
        return JSONResponse({"object": "list", "currency": card.currency, "data": data})

    @router.post(
        "/tokenize", summary="The tokens of a text", responses=READING, openapi_extra=_request_body(TokenizeBody)
    )
    async def tokenize(request: Request) -> Response:
        def tokens(body: TokenizeBody, scorer: LocalScorer) -> dict[str, Any]:
            found = scorer.tokenize(body.prompt)
            strings = [scorer.prompts.decode([token]) for token in found] if body.return_token_strs else None
            context = min(scorer.info.max_tokens, settings.max_context)
            return {"count": len(found), "max_model_len": context, "tokens": found, "token_strs": strings}

        return await _answer(request, TokenizeBody, tokens, models, settings, auth)

    @router.post(
        "/detokenize", summary="The text of tokens", responses=READING, openapi_extra=_request_body(DetokenizeBody)
    )
    async def detokenize(request: Request) -> Response:
        def text(body: DetokenizeBody, scorer: LocalScorer) -> dict[str, Any]:
            return {"prompt": scorer.prompts.decode(body.tokens)}

        return await _answer(request, DetokenizeBody, text, models, settings, auth)

    return router


def _request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """For the description: FastAPI itself would read a body of any size, before it knows who sent it."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


async def _answer(
    request: Request,
    kind: type[Body],
    work: Callable[[Body, LocalScorer], dict[str, Any]],
    models: Models,
    settings: ServerSettings,
    auth: Authenticator,
) -> Response:
    """Key, body, then the work, beside the server's loop."""
    try:
        await auth.identify(request)
        scorer = models.default.scorer
        value, unused = await read_json(request, settings.max_body_mb, json_only=False)
        body, ignored = await beside(request.scope, read_as, value, kind, settings.strict)
        headers = warning_header(unused + ignored)
        return await beside(request.scope, lambda: WrittenJSON(work(body, scorer), headers=headers))
    except ClientDisconnect:
        return Response(status_code=499)
    except (Unauthorized, InvalidRequest, Unavailable) as error:
        return _refusal(error)


def _health(models: Models, troubles: Mapping[str, str]) -> Response:
    """troubles: by what cannot be asked now, so that calls are refused, in what state it is."""
    if models.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    if models.failure is not None:
        return JSONResponse({"status": "failed"}, 503)
    if loading := next((served for served in models if not served.ready), None):
        stage, share = loading.progress
        body = {"status": "loading", "stage": stage, "progress": round(share, 3)}
        return JSONResponse(body, 503, {"retry-after": "1"})
    if troubles:
        return JSONResponse({"status": "unavailable", **troubles}, 503, {"retry-after": "5"})
    body = {"status": "ok", **_state(models.default), "unix": time.time()}  # unix: what Infinity's clients read
    if len(models.all) > 1:
        body["models"] = [_state(served) for served in models]
    return JSONResponse(body)


def _state(served: ServedModel) -> dict[str, Any]:
    info = served.scorer.info
    return {
        "model": info.name,
        "device": info.device,
        "dtype": info.dtype,
        "prompt_id": info.prompt_id,
        "warning": info.notice,
        "fallback": info.is_fallback,
    }


def _refusal(error: RerankdError) -> Response:
    words = ERRORS.word(error)
    headers = {}
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, Unavailable):
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, BodyTooLarge | BodyTimeout):
        headers["connection"] = "close"  # the rest of the body is not read
    if isinstance(error, UnsupportedEncoding):
        headers["accept-encoding"] = ", ".join(error.read)
    message = error.details if isinstance(error, InvalidRequest) else str(error)
    body: dict[str, Any] = {"error": {"message": message, **words._asdict()}}
    if isinstance(error, ModelNotFound):
        body["detail"] = message  # what Xinference's client reads
    return JSONResponse(body, ERRORS.status(error), headers)


def _price(price: Price, settings: ServerSettings) -> dict[str, Any]:
    """One line of the price list; the price as a string, since a float is not exact."""
    return {
        "model": price.model,
        "input_price": f"{price.input_price:f}",
        "currency": price.currency,
        "unit": "1M tokens",
        "free_tokens": price.free_tokens,
        "free_days": price.free_days,
        "context": price.context,
        "languages": price.languages,
        "description": price.description,
        "limits": {
            "requests_per_minute": price.requests_per_minute or settings.requests_per_minute,
            "tokens_per_minute": price.tokens_per_minute or settings.tokens_per_minute,
            "concurrency": price.concurrency or settings.concurrency,
        },
    }


def _model_card(name: str, root: str, context: int, notice: str | None, created: int) -> dict[str, Any]:
    card: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rerankd",
        "root": root,
        "parent": None,
        "max_model_len": context,
        "model_type": "rerank",
        "model_uid": name,
        "model_name": root,
        "replica": 1,
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
