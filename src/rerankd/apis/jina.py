"""Jina's rerank.

Sources: the description of api.jina.ai, and Jina's own server for closed networks (github.com/jina-ai/jina-airgap),
whose tests hold captured replies.
"""

from __future__ import annotations

import uuid

from pydantic import BaseModel, Field, RootModel

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.errors import BodyTooLarge, NotJSON
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    EchoedDocument,
    InstructBody,
    ListOf,
    ObjectDocument,
    OwnFields,
    document_text,
    document_texts,
)
from rerankd.errors import (
    InvalidRequest,
    MissingKey,
    ModelNotFound,
    OutOfCredit,
    Problem,
    PromptTooLong,
    RerankdError,
    Unauthorized,
)
from rerankd.types import Score

SCORE_DECIMALS = 8


ERRORS = ErrorTable(
    {InvalidRequest: 422, PromptTooLong: 400, BodyTooLarge: 413, ModelNotFound: 400, OutOfCredit: 403},
    {
        PromptTooLong: "INPUT_TOKEN_LIMIT_EXCEEDED",
        ModelNotFound: "INPUT_MODEL_NOT_FOUND",
        403: "AUTHZ_MODEL_ACCESS_DENIED",
        OutOfCredit: "AUTHZ_INSUFFICIENT_BALANCE",
        405: "METHOD_NOT_ALLOWED",
        408: "REQUEST_TIMEOUT",
        413: "PAYLOAD_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        422: "",  # a list of mistakes instead
        "requests": "RATE_REQUEST_LIMIT_EXCEEDED",
        "tokens": "RATE_TOKEN_LIMIT_EXCEEDED",
        "concurrency": "RATE_CONCURRENCY_LIMIT_EXCEEDED",
        500: "INTERNAL_ERROR",
        503: "SERVICE_UNAVAILABLE",
    },
)


# The bodies, as the API's description shows them.


class Body(InstructBody):
    model: str | None = Field(None, description="A served name; any, when left out.")
    query: ObjectDocument = Field(examples=["What is the capital of China?"])
    documents: ListOf[ObjectDocument] = Field(
        min_length=1, examples=[["The capital of China is Beijing.", {"text": "Gravity is a force."}]]
    )
    top_n: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    top_k: int | None = Field(None, ge=1, description="The same.")
    return_documents: bool | None = Field(None, description="Echo each document; true by default.")
    max_doc_length: int | None = Field(None, ge=1, le=8192, description="Tokens; longer documents are cut.")
    max_tokens_per_doc: int | None = Field(None, ge=1, le=8192, description="The same.")


class Result(OwnFields):
    index: int
    relevance_score: float = Field(ge=0, le=1, description=f"With {SCORE_DECIMALS} decimals.")
    document: EchoedDocument | None = None


class Usage(BaseModel):
    total_tokens: int


class Reply(BaseModel):
    model: str
    object: str = "list"
    usage: Usage
    results: list[Result]


class Mistake(BaseModel):
    field: str = Field(examples=["body -> top_n"])
    message: str
    type: str = Field(examples=["greater_than_equal"])
    input: str | int | float | bool | None


class ValidationFailed(BaseModel):
    """422."""

    detail: str
    request_id: str
    errors: list[Mistake]


class Refused(BaseModel):
    """401."""

    detail: str
    request_id: str
    code: str


class Detail(BaseModel):
    message: str
    request_id: str
    code: str


class Failed(BaseModel):
    """Every other status."""

    detail: Detail


class Error(RootModel[ValidationFailed | Refused | Failed]):
    pass


class Jina(Api[Body]):
    """`POST /v1/rerank`."""

    facts = FACTS["jina"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ERRORS

    def parse(self, body: Body) -> Call:
        query = document_text(body.query, "query")
        documents = document_texts(body.documents, "documents")
        limits = self.limits(max_document_tokens=body.max_doc_length or body.max_tokens_per_doc)
        top_n, show = body.top_n or body.top_k, Show(body.return_documents is not False, body.documents)
        warnings = _second_names(body)
        return self.call(body, query, documents, top_n, limits, model=body.model, warnings=warnings, show=show)

    def reply(self, answer: Answer) -> JSON:
        return {
            "model": answer.model,
            "object": "list",
            "usage": {"total_tokens": answer.usage.prompt_tokens},
            "results": [_result(answer, score) for score in answer.ranking.ranked],
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        request_id = _hex(request_id)
        if isinstance(error, Unauthorized):
            return ERRORS.status(error), _refusal(error, request_id)
        status, code = ERRORS.status(error), ERRORS.word(error)
        if code:
            return status, {"detail": {"message": str(error), "request_id": request_id, "code": code}}
        assert isinstance(error, InvalidRequest)
        mistakes = [_mistake(problem) for problem in _problems(error)]
        detail = f"Validation error: '{mistakes[0]['field']}' {mistakes[0]['message']}"
        return status, {"detail": detail, "request_id": request_id, "errors": mistakes}


def _result(answer: Answer, score: Score) -> JSON:
    value = round(score.score, SCORE_DECIMALS)
    return answer.result(score, index=score.index, relevance_score=value, **answer.document(score))


def _second_names(body: Body) -> tuple[str, ...]:
    """A warning for each alias that says something else than the field's own name."""
    pairs = (("top_n", "top_k"), ("max_doc_length", "max_tokens_per_doc"))
    return tuple(
        f"{alias} ignored: {name} says something else"
        for name, alias in pairs
        if None not in (own := getattr(body, name), other := getattr(body, alias)) and own != other
    )


def _hex(request_id: str) -> str:
    """An id of ours as this API writes ids; another caller's as it is."""
    try:
        return uuid.UUID(request_id).hex
    except ValueError:
        return request_id


def _refusal(error: Unauthorized, request_id: str) -> JSON:
    if isinstance(error, MissingKey):
        detail, code = f"Authentication required. {error}", "AUTH_MISSING_API_KEY"
    else:
        detail, code = "Invalid API key", "AUTH_INVALID_API_KEY"
    return {"detail": detail, "request_id": request_id, "code": code}


def _problems(error: InvalidRequest) -> tuple[Problem, ...]:
    kind = "json_invalid" if isinstance(error, NotJSON) else "value_error"
    return error.problems or (Problem("", str(error), kind),)


def _mistake(problem: Problem) -> JSON:
    field = " -> ".join(["body", *problem.path.split(".")]) if problem.path else "body"
    return {"field": field, "message": problem.message, "type": problem.kind, "input": problem.input}
