"""vLLM's rerank, on the paths that many services claim: its errors have the keys that the clients of each read.

Source: vLLM `entrypoints/pooling/scoring/protocol.py`, recorded replies of a vLLM 0.32 server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from rerankd.apis.base import FLAT_CODES, Answer, Api, ApiSettings, Call, ErrorTable
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    EchoedDocument,
    ListOf,
    ObjectDocument,
    OwnFields,
    PassageOptions,
    RankFields,
    chunks_asked,
    document_texts,
)
from rerankd.apis.vllm import ERRORS, ErrorObject, Options, VLLMUsage, as_list, error_object, read
from rerankd.errors import InvalidRequest, RerankdError
from rerankd.types import Limits, Score

CODES = ErrorTable(words=FLAT_CODES)
"""For readers of the flat shape."""


# The bodies, as the API's description shows them.


class Body(Options):
    """The fields of vLLM, and those that Cohere's, Jina's and Xinference's clients send to the same path."""

    query: ObjectDocument = Field(examples=["What is the capital of China?"])
    documents: ListOf[ObjectDocument] | ObjectDocument = Field(
        examples=[["The capital of China is Beijing.", "Gravity is a force."]]
    )
    top_n: int | None = Field(None, ge=0, description="How many results to return; 0 or left out: all.")
    return_documents: bool | None = Field(None, description="false leaves the documents out.")
    rank_fields: RankFields | None = Field(None, description="The keys of object documents that are scored.")
    max_doc_length: int | None = Field(None, ge=1, description="Jina's name of max_tokens_per_doc.")
    max_chunks_per_doc: int | None = Field(
        None, description="Cohere's: documents over the served context are split into so many passages at most."
    )
    overlap_tokens: int | None = Field(
        None, description="SiliconFlow's: so many tokens at the end of a passage are in the next one, too."
    )
    return_len: bool | None = Field(None, description="Xinference's; tokens are always counted in `meta.tokens`.")

    def limits(self, settings: ApiSettings) -> Limits:
        limits = super().limits(settings)
        return replace(limits, max_document_tokens=limits.max_document_tokens or self.max_doc_length)

    def passages_asked(self) -> PassageOptions | bool | None:
        """See `RequestBody.passages_asked`."""
        return chunks_asked(self.passages, self.max_chunks_per_doc, self.overlap_tokens)


class Result(OwnFields):
    index: int
    document: EchoedDocument | None = None
    relevance_score: float


class Reply(BaseModel):
    id: str
    object: str = "list"
    model: str
    usage: VLLMUsage
    results: list[Result]
    meta: dict[str, Any] = Field(description="Cohere's counters; `warnings`: what was not done as asked.")


class Error(BaseModel):
    """What the clients of vLLM, Cohere, Jina, Voyage and DashScope read, side by side."""

    error: ErrorObject
    message: str
    detail: str
    code: str
    request_id: str
    id: str


class VLLMRerank(Api[Body]):
    """`POST /v1/rerank`, `/rerank`, `/v2/rerank`."""

    facts = FACTS["vllm-rerank"]
    json_only = True
    errors = ERRORS
    body = Body
    reply_body = Reply
    error_body = Error

    def claims(self, given: Mapping[str, bool]) -> bool:
        return "query" in given and "documents" in given

    def parse(self, body: Body) -> Call:
        if body.rank_fields == []:
            raise InvalidRequest("rank_fields must not be empty: name a field, or leave it out.")
        sent = as_list(body.documents)
        documents = document_texts(sent, "documents", body.rank_fields)
        call = read(document_texts([body.query], "query"), documents, body, self.settings, body.top_n or None)
        show = replace(call.show, documents=body.return_documents is not False, sent=sent)
        return replace(call, show=show)

    def reply(self, answer: Answer) -> JSON:
        tokens = answer.usage.prompt_tokens
        return {
            "id": f"rerank-{answer.id}",
            "object": "list",
            "model": answer.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            "results": [_result(answer, score) for score in answer.ranking.ranked],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": answer.search_units},
                "tokens": {"input_tokens": tokens, "output_tokens": 0},
                "warnings": list(answer.warnings),
            },
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        nested = error_object(error)
        message, code = nested["message"], CODES.word(error)
        flat = {"message": message, "detail": message, "code": code, "request_id": request_id, "id": request_id}
        return ERRORS.status(error), {"error": nested, **flat}


def _result(answer: Answer, score: Score) -> JSON:
    # Without the documents the key is left out, because LiteLLM's type has no null.
    return answer.result(score, index=score.index, **answer.document(score), relevance_score=answer.value(score))
