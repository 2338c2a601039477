"""POST /tokenize and /detokenize, in the shapes of vLLM."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from rerankd.apis.fields import ListOf
from rerankd.apis.openai import READING
from rerankd.errors import InvalidRequest, Unauthorized, Unavailable
from rerankd.server.beside import beside
from rerankd.server.body import read_json
from rerankd.server.context import Context, ServerContext
from rerankd.server.json_text import WrittenJSON
from rerankd.server.openai_errors import refusal
from rerankd.server.reply_headers import warning_header
from rerankd.server.served import LocalScorer
from rerankd.server.validation import read_as

Body = TypeVar("Body", bound=BaseModel)

router = APIRouter(tags=["status"])


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


def _request_body(kind: type[BaseModel]) -> dict[str, Any]:
    """For the description only. FastAPI would read a body of any size before the key is checked."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


@router.post("/tokenize", summary="The tokens of a text", responses=READING, openapi_extra=_request_body(TokenizeBody))
async def tokenize(request: Request, context: Context) -> Response:
    def tokens(body: TokenizeBody, scorer: LocalScorer) -> dict[str, Any]:
        found = scorer.tokenize(body.prompt)
        strings = [scorer.prompts.decode([token]) for token in found] if body.return_token_strs else None
        longest = min(scorer.info.max_tokens, context.settings.max_context)
        return {"count": len(found), "max_model_len": longest, "tokens": found, "token_strs": strings}

    return await _answer(request, context, TokenizeBody, tokens)


@router.post(
    "/detokenize", summary="The text of tokens", responses=READING, openapi_extra=_request_body(DetokenizeBody)
)
async def detokenize(request: Request, context: Context) -> Response:
    def text(body: DetokenizeBody, scorer: LocalScorer) -> dict[str, Any]:
        return {"prompt": scorer.prompts.decode(body.tokens)}

    return await _answer(request, context, DetokenizeBody, text)


async def _answer(
    request: Request,
    context: ServerContext,
    kind: type[Body],
    work: Callable[[Body, LocalScorer], dict[str, Any]],
) -> Response:
    """Checks the key, reads the body, and does the work outside the event loop."""
    settings = context.settings
    try:
        await context.auth.identify(request)
        context.models.default.scorer  # noqa: B018  # raises Loading before the body is read
        value, unused = await read_json(request, settings.max_body_mb, json_only=False)
        body, ignored = await beside(request.scope, partial(read_as, value, kind, settings.strict))
        headers = warning_header(unused + ignored)
        with context.models.default.lease() as scorer:
            return await beside(request.scope, lambda: WrittenJSON(work(body, scorer), headers=headers))
    except ClientDisconnect:
        return Response(status_code=499)
    except (Unauthorized, InvalidRequest, Unavailable) as error:
        return refusal(error)
