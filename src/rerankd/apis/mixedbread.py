"""Mixedbread's reranking.

Sources: mixedbread.com/api-reference, and its SDKs: `mixedbread` 0.54.0, and `mixedbread-ai` 2.2.6, which has the
bodies of errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    InstructBody,
    ListOf,
    ObjectDocument,
    OwnFields,
    RankFields,
    Usage,
    document_text,
    document_texts,
)
from rerankd.errors import InvalidRequest, Problem, RerankdError

ERRORS = ErrorTable(
    {InvalidRequest: 422},
    {
        400: "bad_request_error",
        401: "unauthorized_error",
        402: "payment_required_error",
        403: "forbidden_error",
        404: "not_found_error",
        422: "validation_error",
        429: "too_many_requests_error",
        500: "server_error",
    },
)


# The bodies, as the API's description shows them.


class Body(InstructBody):
    model: str | None = Field(None, description="A served name; any, when left out.")
    query: ObjectDocument = Field(examples=["What is the capital of China?"])
    input: ListOf[ObjectDocument] = Field(
        min_length=1, examples=[["The capital of China is Beijing.", "Gravity is a force."]]
    )
    rank_fields: RankFields | None = Field(
        None, min_length=1, description="The keys of object inputs that are scored; `text` by default."
    )
    top_k: int | None = Field(None, description="How many results to return, at least 1; -1 or left out: all.")
    return_input: bool | None = Field(None, description="Echo each input; false by default.")
    rewrite_query: bool | None = Field(None, description="Accepted; the query is scored as it is.")


class Result(OwnFields):
    index: int
    score: float = Field(ge=0, le=1)
    input: str | dict[str, Any] | None = Field(description="As it was sent; null unless `return_input`.")
    object: Literal["rank_result"] = "rank_result"


class Reply(BaseModel):
    model: str
    object: Literal["list"] = "list"
    data: list[Result]
    usage: Usage
    top_k: int = Field(description="The number of results.")
    return_input: bool


class Error(BaseModel):
    type: str
    url: str | None
    message: str
    details: list[dict[str, Any]] | None = Field(description="The fields that are wrong.")


class Mixedbread(Api[Body]):
    """`POST /v1/reranking`."""

    facts = FACTS["mixedbread"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ERRORS

    def claims(self, given: Mapping[str, bool]) -> bool:
        return "input" in given

    def parse(self, body: Body) -> Call:
        query = document_text(body.query, "query")
        documents = document_texts(body.input, "input", body.rank_fields)
        warnings = ("rewrite_query ignored: the query is scored as it is",) if body.rewrite_query else ()
        top_n, show = _top_n(body.top_k), Show(bool(body.return_input), body.input)
        return self.call(body, query, documents, top_n, model=body.model, warnings=warnings, show=show)

    def reply(self, answer: Answer) -> JSON:
        ranked = answer.ranking.ranked
        return {
            "model": answer.model,
            "object": "list",
            "data": [
                answer.result(
                    score,
                    index=score.index,
                    score=score.score,
                    input=answer.show.sent[score.index] if answer.show.documents else None,
                    object="rank_result",
                )
                for score in ranked
            ],
            "usage": answer.openai_usage,
            "top_k": len(ranked),
            "return_input": answer.show.documents,
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        message, details = str(error), None
        if isinstance(error, InvalidRequest):
            message = error.details
            details = [{"field": one.path, "message": one.message, "type": one.kind} for one in error.problems] or None
        body = {"type": ERRORS.word(error), "url": None, "message": message, "details": details}
        return ERRORS.status(error), body


def _top_n(top_k: int | None) -> int | None:
    if top_k is None or top_k == -1:  # the documented default
        return None
    if top_k < 1:
        problem = Problem("top_k", "Input should be greater than or equal to 1", "greater_than_equal", top_k)
        raise InvalidRequest("top_k is out of range.", (problem,))
    return top_k
