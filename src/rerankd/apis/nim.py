"""NVIDIA NIM's ranking, on the path of a NIM and on those of its hosted API.

Sources: docs.nvidia.com/nim/nemo-retriever (using reranking, API reference), and what `langchain-nvidia-ai-endpoints`
1.5.0, `nvidia-haystack` 3.0.0, `llama-index-postprocessor-nvidia-rerank` 0.7.0 and LiteLLM 1.106 send and read.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, Call, ErrorTable
from rerankd.apis.errors import BodyTooLarge
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    InstructBody,
    ListOf,
    ObjectDocument,
    OwnFields,
    PassageOptions,
    Usage,
    document_text,
    document_texts,
)
from rerankd.errors import InvalidRequest, PromptTooLong, RerankdError

MAX_PASSAGES = 512


ERRORS = ErrorTable(
    {BodyTooLarge: 413},
    {
        400: "invalid_request_error",
        401: "authentication_error",
        402: "insufficient_quota",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "internal_server_error",
        503: "service_unavailable",
    },
)


# The bodies, as the API's description shows them.


class Body(InstructBody):
    model: str | None = Field(None, description="A served name; any, when left out.")
    query: ObjectDocument = Field(examples=[{"text": "What is the capital of China?"}])
    passages: ListOf[ObjectDocument] = Field(  # type: ignore[assignment]  # the documents have the name of our field
        min_length=1,
        description=f"From 1 to {MAX_PASSAGES}.",
        examples=[[{"text": "The capital of China is Beijing."}, {"text": "Gravity is a force."}]],
    )
    truncate: Literal["NONE", "END"] | None = Field(
        None, description="NONE, the default, refuses a call with a text that does not fit; END cuts its end."
    )
    top_k: int | None = Field(None, ge=1, description="Of the hosted API: how many to return; all by default.")
    passage_options: PassageOptions | bool | None = Field(
        None, description="rerankd's own: what is called `passages` in the other APIs."
    )

    def passages_asked(self) -> PassageOptions | bool | None:
        """See `RequestBody.passages_asked`."""
        return self.passage_options


class Rank(OwnFields):
    index: int
    logit: float


class Reply(BaseModel):
    rankings: list[Rank]
    usage: Usage


class Error(BaseModel):
    """A NIM's keys, and those of the hosted API, which LangChain's client prints."""

    object: str = "error"
    message: str
    type: str
    title: str
    status: int
    detail: str


class NIM(Api[Body]):
    """`POST /v1/ranking`, and `/v1/retrieval/…/reranking` of the hosted API, whatever model the path names."""

    facts = FACTS["nim"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ERRORS

    @property
    def max_documents(self) -> int:
        """The API's own limit, or the server's."""
        return min(MAX_PASSAGES, self.settings.max_call_documents)

    def parse(self, body: Body) -> Call:
        query = document_text(body.query, "query")
        passages = document_texts(body.passages, "passages")
        truncates = body.truncate == "END" or self.settings.truncate_overlong
        limits = self.limits(on_overlong="truncate" if truncates else "refuse_if_truncated")
        return self.call(body, query, passages, body.top_k, limits, model=body.model)

    def reply(self, answer: Answer) -> JSON:
        return {
            "rankings": [
                answer.result(score, index=score.index, logit=score.raw_score) for score in answer.ranking.ranked
            ],
            "usage": answer.openai_usage,
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, dict[str, Any]]:
        status = ERRORS.status(error)
        message = _message(error)
        return status, {
            "object": "error",
            "message": message,
            "type": ERRORS.word(error),
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": message,
        }


def _message(error: RerankdError) -> str:
    if isinstance(error, PromptTooLong) and error.part != "instruct" and error.limit is not None:
        return f"Input length exceeds maximum allowed token size {error.limit}. {error} Set `truncate` to END."
    return error.details if isinstance(error, InvalidRequest) else str(error)
