"""Cohere's rerank, versions 1 and 2.

Sources: docs.cohere.com (API reference, errors, best practices for rerank) and the `cohere` SDK 7.3.1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from rerankd.apis.base import DOCUMENTS_A_SEARCH_UNIT, Answer, Api, Call, ErrorTable, Show
from rerankd.apis.errors import NotJSON
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    MAX_ITEMS,
    MAX_PRIORITY,
    Bounded,
    EchoedDocument,
    InstructBody,
    ListOf,
    ObjectDocument,
    OwnFields,
    RankFields,
    allowed_priority,
    document_texts,
)
from rerankd.errors import InvalidRequest, MissingKey, ModelNotFound, RerankdError, Unauthorized
from rerankd.types import Passages, Score

MAX_QUERY_TOKENS = 2048
MAX_DOCUMENTS = 10_000
MAX_CHUNKS = 10_000
"""Documents × chunks a document must stay below it, in version 1."""

DEFAULT_CHUNKS_PER_DOC = 10
DEFAULT_TOKENS_PER_DOC = 4096

NO_TEXT = "document does not have a 'snippet' or a 'text' field that can be used for chunking and reranking"


def _message(error: RerankdError) -> str:
    """The documented sentence where there is one, then what exactly was wrong."""
    if isinstance(error, Unauthorized):
        return "no api key supplied" if isinstance(error, MissingKey) else "invalid api token"
    if isinstance(error, ModelNotFound):
        return (
            f"model '{error.name}' not found, make sure the correct model ID was used and that you have access to the "
            f"model. {error}"
        )
    if isinstance(error, NotJSON):
        return f"invalid json syntax: {error}"
    if isinstance(error, InvalidRequest) and error.problems:
        if any(problem[:2] == ("model", "Field required") for problem in error.problems):
            return "a model parameter is required for this endpoint."
        return f"invalid request: {error.details}"
    return str(error)


def _refuse_empty(query: str, documents: tuple[str, ...]) -> None:
    """Raises InvalidRequest for texts that the API refuses as empty."""
    if not query.strip():
        raise InvalidRequest("invalid request: query must not be empty or be only whitespace")
    if not documents:
        raise InvalidRequest("invalid request: list of documents must not be empty")
    if "" in documents:
        raise InvalidRequest(f"invalid request: document at index {documents.index('')} cannot be empty")


# The bodies, as the API's description shows them.


class V1Body(InstructBody):
    model: str | None = Field(None, description="A served name; any, when left out.")
    query: str = Field(examples=["What is the capital of China?"])
    documents: ListOf[ObjectDocument] = Field(
        description="Texts, or objects with the key `text`, `snippet`, or those named in `rank_fields`.",
        examples=[["The capital of China is Beijing.", "Gravity is a force."]],
    )
    top_n: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    rank_fields: RankFields | None = Field(
        None, description="The keys of object documents that are scored; [`text`] by default."
    )
    return_documents: bool | None = Field(None, description="Echo each document; false by default.")
    max_chunks_per_doc: int | None = Field(
        None,
        ge=1,
        description=f"Documents × this must be below {MAX_CHUNKS}; {DEFAULT_CHUNKS_PER_DOC} by default. A document "
        "that is longer than the served context is split into at most this many passages; the best one counts.",
    )


class V2Body(InstructBody):
    model: str = Field(examples=["qwen3-rerank"])
    query: str = Field(examples=["What is the capital of China?"])
    documents: Annotated[list[ObjectDocument], Bounded(MAX_DOCUMENTS)] = Field(
        examples=[["The capital of China is Beijing.", "Gravity is a force."]]
    )
    top_n: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description=f"Longer documents are cut; {DEFAULT_TOKENS_PER_DOC} by default."
    )
    priority: int | None = Field(
        None, ge=0, le=MAX_PRIORITY, description="A higher one is computed later; 0 by default."
    )
    relevant_spans: dict[str, Any] | None = Field(None, description="Accepted; no spans are found.")
    return_documents: bool | None = Field(
        None, description="Echo each document; false by default. Cohere accepts it; its reference no longer lists it."
    )


class Result(OwnFields):
    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: EchoedDocument | None = None


class ApiVersion(BaseModel):
    version: str
    is_experimental: bool


class BilledUnits(BaseModel):
    search_units: int = Field(description=f"One for each {DOCUMENTS_A_SEARCH_UNIT} documents, or a part of them.")


class Tokens(BaseModel):
    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    warnings: list[str] = Field(description="Each deviation from the request.")


class Reply(BaseModel):
    id: str
    results: list[Result]
    meta: Meta


class Error(BaseModel):
    id: str
    message: str


BodyT = TypeVar("BodyT", V1Body, V2Body)


class _Cohere(Api[BodyT]):
    """The base of both versions."""

    version: str
    error_body = Error
    errors = ErrorTable()

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        return self.errors.status(error), {"id": request_id, "message": _message(error)}

    def reply(self, answer: Answer) -> JSON:
        return {
            "id": answer.id,
            "results": [_result(answer, score) for score in answer.ranking.ranked],
            "meta": {
                "api_version": {"version": self.version, "is_experimental": False},
                "billed_units": {"search_units": answer.search_units},
                "tokens": {"input_tokens": answer.usage.prompt_tokens, "output_tokens": 0},
                "warnings": list(answer.warnings),
            },
        }


def _result(answer: Answer, score: Score) -> JSON:
    return answer.result(score, **answer.document(score), index=score.index, relevance_score=score.score)


class CohereV1(_Cohere[V1Body]):
    """`POST /v1/rerank`."""

    facts = FACTS["cohere-v1"]
    version = "1"
    body = V1Body
    reply_body = Reply

    @property
    def max_documents(self) -> int:
        """`parse` refuses fewer than these, by their chunks."""
        return MAX_ITEMS

    def parse(self, body: V1Body) -> Call:
        if body.rank_fields == []:
            raise InvalidRequest(
                "invalid request: rank_fields cannot be empty, it must either contain at least one field or be omitted"
            )
        self._check_chunks(len(body.documents), body.max_chunks_per_doc)
        documents = _texts(body)
        _refuse_empty(body.query, documents)
        limits = self.limits(max_documents=self.settings.max_call_documents, max_query_tokens=MAX_QUERY_TOKENS)
        show = Show(bool(body.return_documents), body.documents)
        call = self.call(body, body.query, documents, body.top_n, limits, model=body.model, show=show)
        return replace(call, passages=Passages(max_per_doc=body.max_chunks_per_doc or DEFAULT_CHUNKS_PER_DOC))

    def _check_chunks(self, num_documents: int, chunks_per_doc: int | None) -> None:
        chunks = num_documents * (chunks_per_doc or DEFAULT_CHUNKS_PER_DOC)
        if chunks >= MAX_CHUNKS:
            raise InvalidRequest(
                "invalid request: number of total max chunks (number of documents * max chunks per doc) must be less "
                f"than {MAX_CHUNKS}; it is {chunks}. Lower max_chunks_per_doc, or send several requests."
            )


def _texts(body: V1Body) -> tuple[str, ...]:
    if body.rank_fields in (None, ["text"]):
        return tuple(_text(document, index) for index, document in enumerate(body.documents))
    return document_texts(body.documents, "documents", body.rank_fields)


def _text(document: ObjectDocument, index: int) -> str:
    text = document.get("text", document.get("snippet")) if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise InvalidRequest(f"{NO_TEXT} (documents.{index})")
    return text


class CohereV2(_Cohere[V2Body]):
    """`POST /v2/rerank`."""

    facts = FACTS["cohere-v2"]
    version = "2"
    body = V2Body
    reply_body = Reply

    def parse(self, body: V2Body) -> Call:
        spans = body.relevant_spans and body.relevant_spans.get("mode") != "disabled"
        warnings = ("relevant_spans ignored: no spans are found",) if spans else ()
        limits = self.limits(
            max_query_tokens=MAX_QUERY_TOKENS, max_document_tokens=body.max_tokens_per_doc or DEFAULT_TOKENS_PER_DOC
        )
        documents = document_texts(body.documents, "documents")
        _refuse_empty(body.query, documents)
        priority, _ = allowed_priority(body.priority, trusted=self.settings.trust_priority)
        show = Show(bool(body.return_documents), body.documents)
        return self.call(
            *(body, body.query, documents, body.top_n, limits),
            model=body.model,
            warnings=warnings,
            show=show,
            priority=priority,
        )
