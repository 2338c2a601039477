"""GET /v1/models, /v1/models/{name} and /v1/rates: the models and their prices."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from rerankd.apis.openai import KEYED, UNKNOWN_MODEL
from rerankd.errors import ModelNotFound, Unauthorized, Unavailable
from rerankd.prices import Price
from rerankd.server.context import Context, ServerContext
from rerankd.server.models import Models, Served
from rerankd.server.openai_errors import refusal
from rerankd.server.prices_in_force import in_force

router = APIRouter(tags=["status"])


@router.get("/v1/models", summary="The names that the served models answer to", responses=KEYED)
async def model_cards(request: Request, context: Context) -> Response:
    try:
        await context.auth.identify(request)
        context.models.default.scorer  # noqa: B018  # raises Loading
        data = [_card(name, served, context) for name, served in context.models.names().items()]
        return JSONResponse({"object": "list", "data": data})
    except (Unauthorized, Unavailable) as error:
        return refusal(error)


@router.get(
    "/v1/models/{name:path}",
    summary="A model, in the shape of OpenAI and Xinference",
    responses={**UNKNOWN_MODEL, **KEYED},
)
async def model(name: str, request: Request, context: Context) -> Response:
    try:
        await context.auth.identify(request)
        served, _ = context.models.find(name, any_name=context.settings.any_model)
        return JSONResponse(_card(name, served, context))
    except (Unauthorized, Unavailable, ModelNotFound) as error:
        return refusal(error)


@router.get("/v1/rates", summary="The price list: what each model costs and allows")
async def price_list(context: Context) -> Response:
    current = context.prices.current()
    data = [_price(price, context) for price in current.prices]
    return JSONResponse({"object": "list", "currency": current.currency, "data": data})


def _card(name: str, served: Served, context: ServerContext) -> dict[str, Any]:
    info, price_list = served.scorer.info, context.prices.current()
    longest = min(info.max_tokens, context.settings.max_context)
    card = _model_card(name, info.name, longest, info.notice, context.created)
    price = price_list.of(context.models.names_of(served))
    return {**card, "rerankd": _price(price, context)} if price in price_list.prices else card


def _price(price: Price, context: ServerContext) -> dict[str, Any]:
    """One line of the price list as it holds here; the price as a string, since a float is not exact."""
    price = in_force(price, context.models, context.settings)
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
        "limits": asdict(price.limits),
        "counted": _counted(price.model, context.models),
    }


def _counted(name: str, models: Models) -> str:
    """How the tokens of its calls are counted: by its tokenizer, or estimated where other servers have the model."""
    served = models.names().get(name)
    return "exact" if served is None or served.pool is None or served.pool.counts_exactly else "estimated"


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
    """The permission in vLLM's cards, the same for every caller."""
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
