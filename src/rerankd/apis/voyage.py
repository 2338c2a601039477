"""Voyage's rerank.

Sources: docs.voyageai.com (API reference, error codes, FAQ), the `voyageai` SDK 0.5.0, and recorded error replies.
The limits are those of `rerank-2.5`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, InstructBody, ListOf, ObjectDocument, OwnFields, document_texts
from rerankd.errors import InvalidRequest, ModelNotFound, PromptTooLong, RerankdError, TooManyDocuments, TooManyTokens
from rerankd.types import Score

MAX_DOCUMENTS = 1000
MAX_QUERY_TOKENS = 8_000
MAX_PAIR_TOKENS = 32_000
"""Query and document; here the template counts, too."""

MAX_TOTAL_TOKENS = 600_000


def _message(error: RerankdError) -> str:
    """The API's own sentence where one is on record."""
    if isinstance(error, TooManyTokens):
        return (
            f"Request failed. The max allowed tokens per submitted batch is {error.limit}. Your batch has "
            f"{error.total} tokens after truncation. Please lower the number of tokens in the batch."
        )
    if isinstance(error, PromptTooLong) and error.part != "instruct":
        text = "query" if error.part == "query" else f"example at index {error.index} in your batch"
        texts = "query" if error.part == "query" else "listed example(s)"
        return (
            f"Request failed. The {text} has too many tokens and does not fit into the model's context window of "
            f"{error.limit} tokens. Please lower the number of tokens in the {texts} or use truncation."
        )
    return error.details if isinstance(error, InvalidRequest) else str(error)


# The bodies, as the API's description shows them.


class SharedBody(InstructBody):
    model: str | None = Field(None, description="A served name; any, when left out.")
    query: str = Field(examples=["What is the capital of China?"])
    documents: ListOf[ObjectDocument] = Field(
        description=f"From 1 to {MAX_DOCUMENTS}.",
        examples=[["The capital of China is Beijing.", "Gravity is a force."]],
    )
    top_k: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    return_documents: bool | None = Field(None, description="Echo each document's text; false by default.")
    truncation: bool | None = Field(
        None, description="false refuses a call with a text that is too long; by default such texts are cut."
    )


class Body(SharedBody):
    model: str = Field(examples=["qwen3-rerank"])


class Result(OwnFields):
    relevance_score: float = Field(ge=0, le=1)
    index: int
    document: str | None = None


class Usage(BaseModel):
    total_tokens: int = Field(description="query tokens × documents + tokens of all documents")


class Reply(BaseModel):
    object: str = "list"
    data: list[Result]
    model: str
    usage: Usage


class Error(BaseModel):
    detail: str


class VoyageShared(Api[SharedBody]):
    """The same on the paths of several APIs, where `model` may be left out."""

    facts = FACTS["voyage-shared"]
    body: type[SharedBody] = SharedBody
    reply_body = Reply
    error_body = Error
    errors = ErrorTable({ModelNotFound: 400})

    def claims(self, given: Mapping[str, bool]) -> bool:
        return ("top_k" in given or "truncation" in given) and "top_n" not in given

    @property
    def max_documents(self) -> int:
        """The API's own limit, or the server's."""
        return min(MAX_DOCUMENTS, self.settings.max_call_documents)

    def parse(self, body: SharedBody) -> Call:
        documents = document_texts(body.documents, "documents")
        if not documents:
            raise TooManyDocuments(0, MAX_DOCUMENTS)
        limits = self.limits(
            max_query_tokens=MAX_QUERY_TOKENS,
            max_total_tokens=MAX_TOTAL_TOKENS,
            max_prompt_tokens=min(MAX_PAIR_TOKENS, self.settings.max_context),
            on_overlong="refuse_if_truncated" if body.truncation is False else "truncate",
        )
        show = Show(bool(body.return_documents))
        return self.call(body, body.query, documents, body.top_k, limits, model=body.model, show=show)

    def reply(self, answer: Answer) -> JSON:
        return {
            "object": "list",
            "data": [_result(answer, score) for score in answer.ranking.ranked],
            "model": answer.model,
            "usage": {"total_tokens": answer.usage.text_tokens},
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        return self.errors.status(error), {"detail": _message(error)}


def _result(answer: Answer, score: Score) -> JSON:
    document = {"document": score.document} if answer.show.documents else {}
    return answer.result(score, relevance_score=score.score, index=score.index, **document)


class Voyage(VoyageShared):
    """`POST /v1/rerank`."""

    facts = FACTS["voyage"]
    body = Body

    def parse(self, body: SharedBody) -> Call:
        if "top_n" in (body.model_extra or {}):
            raise InvalidRequest("Argument 'top_n' is not supported by our API: use 'top_k'.")
        call = super().parse(body)
        inputs = [("query", body.query)]
        inputs += [(f"documents.{index}", document) for index, document in enumerate(call.documents)]
        for where, text in inputs:
            if not text:
                raise InvalidRequest("An input is empty.", ((where, "Input cannot contain empty strings"),))
        return call
