"""vLLM's rerank, on the paths that many services claim, and what its score shares with it.

The errors of rerank have the keys that the clients of each service read. The two share options, limits and errors, and
lift an instruct that is written inside the query.

Sources: vLLM `entrypoints/pooling/scoring/protocol.py`, recorded replies of a vLLM 0.32 server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, Field

from rerankd.apis.base import FLAT_CODES, Answer, Api, ApiSettings, Call, ErrorTable, Show
from rerankd.apis.errors import NotJSON, UnsupportedMedia
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    EchoedDocument,
    ListOf,
    ObjectDocument,
    OwnFields,
    PassageOptions,
    RankFields,
    RequestBody,
    Usage,
    allowed_priority,
    chunks_asked,
    document_texts,
    first_given,
    ignored_keys,
)
from rerankd.errors import InvalidRequest, Problem, PromptTooLong, RerankdError
from rerankd.types import DEFAULT_INSTRUCT, Limits, Score

INSTRUCT = "Instruct:"
QUERY_LINE = re.compile(r"^[^\S\n]*Query:[ \t]*", re.MULTILINE)
"""The embedding model's way of writing an instruct. Some guides recommend it inside the query of a reranker, too."""

ERRORS = ErrorTable(
    words={
        400: "BadRequestError",
        401: "Unauthorized",
        402: "Payment Required",  # as Cohere and OpenRouter; no client retries it
        403: "Forbidden",
        404: "NotFoundError",
        429: "Too Many Requests",
        500: "InternalServerError",
        503: "Service Unavailable",
    }
)

CODES = ErrorTable(words=FLAT_CODES)
"""For readers of the flat shape."""


def _place(problem: Problem) -> str:
    """The dotted path of a mistake, as vLLM writes it."""
    return f"body.{problem.path}".rstrip(".")


def error_object(error: RerankdError) -> JSON:
    """vLLM's error object."""
    nested: JSON = {"message": str(error), "type": ERRORS.word(error), "param": None, "code": ERRORS.status(error)}
    if isinstance(error, InvalidRequest) and error.problems:
        lines = [f"  {{'loc': '{_place(one)}', 'msg': '{one.message}'}}" for one in error.problems]
        plural = "s" if len(lines) > 1 else ""
        nested["message"] = f"{len(lines)} validation error{plural}:\n" + "\n".join(lines)
        nested["type"] = "Bad Request"
        nested["param"] = _place(error.problems[0])
    elif isinstance(error, NotJSON | UnsupportedMedia):
        nested["type"] = "Bad Request"
        if isinstance(error, NotJSON):
            nested["param"] = "body" if error.position is None else f"body.{error.position}"
    elif isinstance(error, PromptTooLong):
        nested["param"] = "input_tokens"
        if error.tokens is not None:
            nested["message"] = (
                f"This model's maximum context length is {error.limit} tokens. However, your prompt for document "
                f"{error.index} contains at least {error.tokens} input tokens. Please reduce the length of the input "
                "prompt, or set truncate_prompt_tokens to -1 to have the document truncated (the operator can have it "
                "truncated for every call: --truncate-overlong)."
            )
    return nested


class Options(RequestBody):
    """The fields that rerank and score share."""

    model: str | None = Field(None, description="A served name; any, when left out.")
    user: str | None = Field(None, description="Accepted; of no effect.")
    instruct: str | None = Field(None, description=f"Sorting task. Default: {DEFAULT_INSTRUCT}")
    instruction: str | None = Field(None, description="The same under vLLM's name.")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Its key `instruction` or `instruct` is the instruct; the template is fixed."
    )
    use_activation: bool | None = Field(None, description="false returns logits in place of scores in [0, 1].")
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="Longest prompt in tokens, -1: the served context. The document is cut, then the query, never the "
        "template.",
    )
    truncation_side: Literal["left", "right"] | None = Field(None, description="The end of a text that is cut off.")
    max_tokens_per_query: int | None = Field(None, description="A longer query is cut; 0: not.")
    max_tokens_per_doc: int | None = Field(None, description="Longer documents are cut; 0: not.")
    priority: int | None = Field(
        None, description="A higher one is computed later; 0 by default. Below 0 only where the operator allows it."
    )
    request_id: str | None = Field(None, description="Taken up in the reply; the header X-Request-Id wins.")
    padding: Literal["max_length", "do_not_pad"] | None = Field(None, description="Accepted; nothing is padded.")
    cache_salt: str | None = Field(None, min_length=1, max_length=1024, description="Accepted; of no effect.")
    mm_processor_kwargs: dict[str, Any] | None = Field(None, description="Accepted; of no effect.")

    def limits(self, settings: ApiSettings) -> Limits:
        """The served context, refused or cut as the caller asks."""
        asked, max_context = self.truncate_prompt_tokens, settings.max_context
        if asked is not None and asked > max_context:
            raise InvalidRequest(
                f"truncate_prompt_tokens value is greater than max_model_len ({max_context}). Please request a "
                "smaller truncation size."
            )
        return Limits(
            max_documents=settings.max_call_documents,
            max_query_tokens=_at_most("max_tokens_per_query", self.max_tokens_per_query, max_context),
            max_document_tokens=_at_most("max_tokens_per_doc", self.max_tokens_per_doc, max_context),
            max_prompt_tokens=max_context if asked is None or asked < 1 else asked,
            on_overlong="refuse" if asked is None and not settings.truncate_overlong else "truncate",
            truncation_side=self.truncation_side or "right",
        )

    def instruct_asked(self) -> tuple[str | None, tuple[str, ...]]:
        """The instruct, and a warning for each field with a different one."""
        kwargs = self.chat_template_kwargs or {}
        if refused := [key for key in kwargs if key in ("chat_template", "tools", "tokenize")]:
            raise InvalidRequest(f"chat_template_kwargs must not hold {refused[0]}: the template is the model's own.")
        said = {
            "chat_template_kwargs.instruction": kwargs.get("instruction"),
            "chat_template_kwargs.instruct": kwargs.get("instruct"),
            "instruct": self.instruct,
            "instruction": self.instruction,
        }
        unused = (key for key in kwargs if key not in ("instruction", "instruct"))
        ignored = ignored_keys("chat_template_kwargs", unused)
        instruct, warnings = first_given(said)
        return instruct, (*ignored, *warnings)


def _at_most(name: str, tokens: int | None, max_context: int) -> int | None:
    """vLLM's rule for its two text limits."""
    if tokens is not None and tokens < 0:
        raise InvalidRequest(f"{name} must be a non-negative integer")
    if tokens is not None and tokens >= max_context:
        raise InvalidRequest(f"{name} must be less than max_model_len ({max_context})")
    return tokens or None


Side = ListOf[ObjectDocument] | ObjectDocument


def as_list(side: Side) -> list[ObjectDocument]:
    return side if isinstance(side, list) else [side]


def read(
    queries: tuple[str, ...], documents: tuple[str, ...], body: Options, settings: ApiSettings, top_n: int | None
) -> Call:
    """Pairs 1:1, 1:N or N:N; an instruct written into a query is lifted out."""
    if not documents:
        raise InvalidRequest("At least one text_pair element must be given: the list of documents is empty.")
    if not queries:
        raise InvalidRequest("At least one text element must be given: the list of queries is empty.")
    if len(queries) not in (1, len(documents)):
        raise InvalidRequest(
            f"Input lengths must be either 1:1, 1:N or N:N. There are {len(queries)} queries and {len(documents)} "
            "documents."
        )
    instruct, warnings = body.instruct_asked()
    if settings.lift_instruct and not instruct and (lifted := _lift(queries)):
        instruct, queries = lifted
        warnings += (f"instruction of {len(instruct)} characters lifted out of the query; send it as `instruction`",)
    priority, reduced = allowed_priority(body.priority, trusted=settings.trust_priority)
    return Call(
        *(queries, documents, instruct or DEFAULT_INSTRUCT, top_n, body.limits(settings), priority),
        model=body.model or None,
        warnings=warnings + reduced,
        id=body.request_id,
        show=Show(logits=body.use_activation is False),
    )


def _lift(queries: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """(instruct, bare queries) if all queries carry one and the same instruct."""
    found = [_split(query) for query in queries]
    parts = [part for part in found if part]
    if len(parts) < len(queries) or len({instruct for instruct, _ in parts}) != 1:
        return None
    return parts[0][0], tuple(query for _, query in parts)


def _split(query: str) -> tuple[str, str] | None:
    """(instruct, bare query). Reads each character once, whatever is in it: no expression that goes back."""
    head = query.lstrip()
    if not head.startswith(INSTRUCT):
        return None
    rest = head[len(INSTRUCT) :].lstrip(" \t")
    line = QUERY_LINE.search(rest, 1)
    if line is None or rest[0].isspace():
        return None
    return rest[: line.start()].rstrip(), rest[line.end() :]


class VLLMUsage(Usage):
    completion_tokens: int = 0


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


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
        None, description="Cohere's: the most passages of a document that is longer than the served context."
    )
    overlap_tokens: int | None = Field(
        None, description="SiliconFlow's: the tokens at the end of a passage that the next one repeats."
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
    meta: dict[str, Any] = Field(description="Cohere's counters; `warnings`: each deviation from the request.")


class Error(BaseModel):
    """An error with the keys that clients of vLLM, Cohere, Jina, Voyage and DashScope read."""

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
