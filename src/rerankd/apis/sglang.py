"""SGLang's rerank, POST or PUT.

Sources: sglang 0.5.23 `entrypoints/openai/protocol.py`, `serving_rerank.py` and `http_server.py`. Its `/v1/score` is
another API and is not served.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, InstructBody, ListOf, OwnFields, document_text
from rerankd.errors import InvalidRequest, RerankdError

Content = str | ListOf[dict[str, Any]] | dict[str, Any]
"""A text, or a list of parts of the type `text`; also an object with the key `text`."""


ERRORS = ErrorTable(
    words={
        400: "BadRequestError",
        401: "Unauthorized",
        402: "PaymentRequiredError",
        403: "ForbiddenError",
        429: "TooManyRequestsError",
        500: "InternalServerError",
        503: "ServiceUnavailableError",
    }
)


class Body(InstructBody):
    query: Content = Field(examples=["What is the capital of China?"])
    documents: ListOf[Content] = Field(examples=[["The capital of China is Beijing.", "Gravity is a force."]])
    top_n: int | None = Field(None, description="How many results to return, at least 1; all by default.")
    return_documents: bool | None = Field(None, description="Echo each document's text; true by default.")
    model: str | None = Field(None, description="Accepted; the one served model answers.")


class Result(OwnFields):
    score: float
    document: str | None = None
    index: int
    meta_info: JSON | None


class Error(BaseModel):
    object: str = "error"
    message: str
    type: str
    param: str | None
    code: int


class SGLang(Api[Body]):
    """`POST` or `PUT /v1/rerank`."""

    facts = FACTS["sglang"]
    body = Body
    reply_body = list[Result]
    error_body = Error
    errors = ERRORS
    any_model = True

    def parse(self, body: Body) -> Call:
        query = _text(body.query, "query")
        documents = tuple(_text(one, f"documents.{index}") for index, one in enumerate(body.documents))
        _refuse_empty(query, documents)
        if body.top_n is not None and body.top_n < 1:
            problem = "Value error, parameter top_n should be larger than 0."
            raise InvalidRequest(problem, [("top_n", problem)])
        show = Show(body.return_documents is not False)
        return self.call(body, query, documents, body.top_n, model=body.model, show=show)

    def reply(self, answer: Answer) -> list[JSON]:
        return [
            answer.result(
                score,
                score=score.score,
                **({"document": score.document} if answer.show.documents else {}),
                index=score.index,
                meta_info=None,
            )
            for score in answer.ranking.ranked
        ]

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        status = ERRORS.status(error)
        message, param = str(error), None
        if isinstance(error, InvalidRequest):
            message = error.details
            param = error.problems[0].path or None if error.problems else None
        kind = ERRORS.word(error)
        return status, {"object": "error", "message": message, "type": kind, "param": param, "code": status}


def _text(content: Content, path: str) -> str:
    """A list of parts is what vLLM has under the key `content`."""
    return document_text({"content": content} if isinstance(content, list) else content, path)


def _refuse_empty(query: str, documents: tuple[str, ...]) -> None:
    if not query.strip():
        raise InvalidRequest("Query cannot be empty or whitespace only" if query else "Query cannot be empty")
    if not documents:
        raise InvalidRequest("Documents cannot be empty")
    for index, document in enumerate(documents):
        if not document.strip():
            problem = "cannot be empty or whitespace only" if document else "must be a non-empty string"
            raise InvalidRequest(f"Each document {problem}", [(f"documents.{index}", f"Each document {problem}")])
