"""Infinity's rerank.

Sources: infinity-emb 0.0.78 `infinity_server.py` and `fastapi_schemas/pymodels.py`, recorded replies of a server.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, ValidatorFunctionWrapHandler, WrapValidator

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.errors import BodyTooLarge, MethodNotAllowed, NotJSON
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, InstructBody, ListOf, OwnFields, Usage, bare_text
from rerankd.apis.status import ServerView, StatusRoute
from rerankd.errors import Busy, InvalidRequest, Problem, RerankdError, Unauthorized

DEFAULT_MODEL = "default/not-specified"
"""The model name that its clients send by default."""

MAX_CHARACTERS = 122_880
"""The longest query or document."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_CHARACTERS)]


class Stripped(str):
    """A document without the white space around it; `start`: how much of it stood before."""

    start = 0


def _stripped(sent: Any, strip: ValidatorFunctionWrapHandler) -> Stripped:
    text = Stripped(strip(sent))
    text.start = len(sent) - len(sent.lstrip()) if text else 0
    return text


ERRORS = ErrorTable(
    {InvalidRequest: 422, BodyTooLarge: 413, Busy: 429},
    {
        402: "payment_required",
        403: "forbidden",
        429: "too_many_requests",
        500: "internal_server_error",
        503: "service_unavailable",
    },
)
"""The words are those of errors that are not in the request itself."""


class Body(InstructBody):
    query: Text = Field(examples=["Where is Munich?"])
    documents: ListOf[Annotated[Text, WrapValidator(_stripped), BeforeValidator(bare_text)]] = Field(
        min_length=1, examples=[["Munich is in Germany.", "The sky is blue."]]
    )
    return_documents: bool | None = Field(None, description="Echo each document's text; false by default.")
    raw_scores: bool | None = Field(None, description="true returns logits in place of scores in [0, 1].")
    model: str | None = Field(None, description="Any name: the one served model answers.")
    top_n: int | None = Field(None, gt=0, description="How many results to return; all by default.")


class Result(OwnFields):
    relevance_score: float
    index: int
    document: str | None = Field(description="null unless the documents are asked for.")


class Reply(BaseModel):
    object: str = "rerank"
    results: list[Result]
    model: str
    usage: Usage
    id: str
    created: int


class ErrorDetail(BaseModel):
    type: str
    loc: list[str | int]
    msg: str
    input: str | float | bool | None


class ServerError(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class Error(BaseModel):
    """`detail`: the caller's mistakes, or one sentence; `error`: the server's."""

    detail: list[ErrorDetail] | str | None = None
    error: ServerError | None = None


class Infinity(Api[Body]):
    """`POST {prefix}/rerank`."""

    facts = FACTS["infinity"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ERRORS
    any_model = True

    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.facts.paths, f"{self.settings.infinity_prefix}/rerank")))

    def parse(self, body: Body) -> Call:
        model = None if body.model == DEFAULT_MODEL else body.model
        starts = [text.start if isinstance(text, Stripped) else 0 for text in body.documents]
        show = Show(bool(body.return_documents), logits=bool(body.raw_scores), starts=starts)
        return self.call(body, body.query, [*map(str, body.documents)], body.top_n, model=model, show=show)

    def reply(self, answer: Answer) -> JSON:
        return {
            "object": "rerank",
            "results": [
                answer.result(
                    score,
                    relevance_score=answer.value(score),
                    index=score.index,
                    document=score.document if answer.show.documents else None,
                )
                for score in answer.ranking.ranked
            ],
            "model": answer.info.name,
            "usage": answer.openai_usage,
            "id": f"infinity-{answer.id}",
            "created": int(time.time()),
        }

    def status_routes(self) -> tuple[StatusRoute, ...]:
        return tuple(
            route
            for prefix in (path.removesuffix("/rerank") for path in self.paths())
            for route in (
                StatusRoute(f"{prefix}/models", "The served model, as in Infinity", _models, (401, 503), True),
                StatusRoute(f"{prefix}/health", "The time, if the server can answer requests", _health),
            )
        )

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        status = ERRORS.status(error)
        if isinstance(error, InvalidRequest | Unauthorized):
            return status, {"detail": _detail(error) if status == 422 else _sentence(error)}
        return status, {"error": {"message": str(error), "type": ERRORS.word(error), "param": None, "code": status}}


def _models(server: ServerView, _: str) -> JSON:
    return {"data": [_model(name, queued, server) for name, queued in server.queued.items()], "object": "list"}


def _model(name: str, queued: int, server: ServerView) -> JSON:
    return {
        "id": name,
        "stats": {"queue_fraction": queued / server.max_queue, "queue_absolute": queued},
        "object": "model",
        "owned_by": "infinity",
        "created": server.started,
        "backend": "torch",
        "capabilities": ["rerank"],
    }


def _health(server: ServerView, _: str) -> JSON:
    server.info  # noqa: B018  # raises Loading
    return {"unix": time.time()}


def _sentence(error: RerankdError) -> str:
    if isinstance(error, Unauthorized):
        return "Unauthorized"
    return "Method Not Allowed" if isinstance(error, MethodNotAllowed) else str(error)


def _detail(error: RerankdError) -> list[JSON]:
    """FastAPI's list of mistakes; what was sent only where it is short."""
    if isinstance(error, NotJSON):
        where = [] if error.position is None else [error.position]
        return [{"type": "json_invalid", "loc": ["body", *where], "msg": str(error), "input": None}]
    listed = (error.problems if isinstance(error, InvalidRequest) else ()) or [Problem("", str(error))]
    return [
        {
            "type": problem.kind,
            "loc": ["body", *(int(part) if part.isdecimal() else part for part in problem.path.split(".") if part)],
            "msg": problem.message,
            "input": problem.input,
        }
        for problem in listed
    ]
