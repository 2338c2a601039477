"""DashScope (Alibaba Cloud Model Studio): the native text-rerank service and the compatible `/reranks`.

Sources: help.aliyun.com/zh/model-studio/text-rerank-api, docs.qwencloud.com/api-reference/rerank, the error
catalogue of Model Studio, the `dashscope` SDK 2.0.2, and EmpirioLabs' page for `/v1/reranks`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from rerankd.apis.base import FLAT_CODES, Answer, Api, ApiSettings, Call, ErrorTable, Show
from rerankd.apis.errors import BodyTooLarge, MethodNotAllowed, NotJSON
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, Document, ListOf, OwnFields, PassageOptions, RequestBody, Usage
from rerankd.errors import (
    Forbidden,
    InvalidRequest,
    MissingKey,
    OutOfCredit,
    RerankdError,
    TooManyDocuments,
    Unauthorized,
    WrongKey,
)
from rerankd.types import Limits

DEFAULT_INSTRUCT = "Given a web search query, retrieve relevant passages that answer the query."
"""The documented default of this family, with a full stop."""

WRONG_KEY = "Incorrect API key provided."
"""The compatible sentence; LiteLLM recognises a wrong key by it."""


class _Compatible(NamedTuple):
    """The error that OpenAI's clients read."""

    code: str
    type: str = "invalid_request_error"


NATIVE_ERRORS = ErrorTable({OutOfCredit: 400, MethodNotAllowed: 400}, FLAT_CODES)

COMPATIBLE_ERRORS = ErrorTable(
    {OutOfCredit: 429, MethodNotAllowed: 400},
    {
        400: _Compatible("invalid_parameter_error"),
        401: _Compatible("invalid_api_key"),
        403: _Compatible("access_denied"),
        404: _Compatible("model_not_found"),
        408: _Compatible("request_timeout"),
        500: _Compatible("internal_error", "server_error"),
        503: _Compatible("service_unavailable", "server_error"),
        OutOfCredit: _Compatible("insufficient_quota", "insufficient_quota"),
        "requests": _Compatible("limit_requests", "requests"),
        "tokens": _Compatible("insufficient_quota", "tokens"),  # another type than without credit
        "concurrency": _Compatible("limit_requests", "requests"),
    },
)


def _message(error: RerankdError, prefix: str) -> str:
    """The catalogue's sentence where it has one, then what exactly was wrong."""
    if isinstance(error, Unauthorized):
        return "No API-key provided." if isinstance(error, MissingKey) else "Invalid API-key provided."
    if isinstance(error, NotJSON):
        return f"Required body invalid, please check the request body format. {error}"
    if isinstance(error, Forbidden):
        return f"Model access denied. {error}"
    if isinstance(error, BodyTooLarge):
        return f"Payload Too Large. {error}"
    if isinstance(error, MethodNotAllowed):
        return f"Request method '{error.method}' is not supported."
    if isinstance(error, TooManyDocuments):
        return (
            "Value error, batch size of documents is invalid, it should not be empty or larger than "
            f"{error.limit}.: {prefix}documents. {error}"
        )
    if isinstance(error, InvalidRequest) and error.problems:
        return " & ".join(f"{problem}: {path}" if path else problem for path, problem, *_ in error.problems)
    return str(error)


def _limits(settings: ApiSettings) -> Limits:
    return Limits(
        max_documents=settings.max_documents,
        max_query_tokens=settings.max_text_tokens,
        max_document_tokens=settings.max_text_tokens,
        max_total_tokens=settings.max_total_tokens,
        on_overlong="refuse_if_truncated" if settings.refuse_long_texts else "truncate",
    )


def _call(
    texts: NativeInput | CompatibleBody,
    options: NativeParameters | CompatibleBody,
    settings: ApiSettings,
    model: str,
    show: Show,
) -> Call:
    if not texts.query.strip():
        raise InvalidRequest("The query is empty.", (("query", "Value error, query should not be empty"),))
    if not texts.documents:
        raise TooManyDocuments(0, settings.max_documents)
    request = (texts.query,), tuple(texts.documents), options.instruct or DEFAULT_INSTRUCT, options.top_n
    return Call(*request, _limits(settings), model=model, show=show)


def _usage(answer: Answer) -> JSON:
    """The billed tokens, without the template's."""
    tokens = answer.usage.text_tokens
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _results(answer: Answer) -> list[JSON]:
    return [
        answer.result(
            score,
            index=score.index,
            relevance_score=score.score,
            **({"document": {"text": score.document}} if answer.show.documents else {}),
        )
        for score in answer.ranking.ranked
    ]


# The bodies, as the API's description shows them.


class ResultDocument(BaseModel):
    text: str


class Result(OwnFields):
    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: ResultDocument | None = None


class NativeInput(RequestBody):
    query: str = Field(examples=["What is a rerank model?"])
    documents: ListOf[Document] = Field(examples=[["A rerank model sorts texts by relevance.", "Bread is baked."]])


class NativeParameters(RequestBody):
    top_n: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    return_documents: bool | None = Field(None, description="Echo each document's text; false by default.")
    instruct: str | None = Field(None, description=f"Sorting task. Default: {DEFAULT_INSTRUCT}")


class NativeBody(RequestBody):
    """Our own fields are read here and in `parameters`."""

    model: str = Field(examples=["qwen3-rerank"])
    input: NativeInput = Field(
        examples=[{"query": "What is a rerank model?", "documents": ["A rerank model sorts texts.", "Bread is baked."]}]
    )
    parameters: NativeParameters | None = None

    def own(self) -> RequestBody:
        """See `RequestBody.own`."""
        inner = self.parameters or NativeParameters()
        given = {name: getattr(self, name) for name in RequestBody.model_fields}
        given = {name: getattr(inner, name) if value is None else value for name, value in given.items()}
        return RequestBody.model_construct(**given)

    def passages_asked(self) -> PassageOptions | bool | None:
        """See `RequestBody.passages_asked`."""
        return self.own().passages


class NativeOutput(BaseModel):
    results: list[Result]


class NativeReply(BaseModel):
    request_id: str
    output: NativeOutput
    usage: Usage


class NativeError(BaseModel):
    code: str
    message: str
    request_id: str


class DashScopeNative(Api[NativeBody]):
    """`POST /api/v1/services/rerank/text-rerank/text-rerank`."""

    facts = FACTS["dashscope-native"]
    body = NativeBody
    reply_body = NativeReply
    error_body = NativeError
    errors = NATIVE_ERRORS

    @property
    def max_documents(self) -> int:
        """DashScope has a setting of its own."""
        return self.settings.max_documents

    def parse(self, body: NativeBody) -> Call:
        options = body.parameters or NativeParameters()
        return _call(body.input, options, self.settings, body.model, Show(bool(options.return_documents)))

    def reply(self, answer: Answer) -> JSON:
        return {
            "request_id": answer.id,
            "output": {"results": _results(answer)},
            "usage": _usage(answer),
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        message = _message(error, "input.")
        if isinstance(error, OutOfCredit):
            message = f"Access denied, please make sure your account is in good standing. {message}"
        body = {"code": NATIVE_ERRORS.word(error), "message": message, "request_id": request_id}
        return NATIVE_ERRORS.status(error), body


class CompatibleBody(RequestBody):
    model: str = Field(examples=["qwen3-rerank"])
    query: str = Field(examples=["What is a rerank model?"])
    documents: ListOf[Document] = Field(examples=[["A rerank model sorts texts by relevance.", "Bread is baked."]])
    top_n: int | None = Field(None, ge=1, description="How many results to return; all by default.")
    instruct: str | None = Field(None, description=f"Sorting task. Default: {DEFAULT_INSTRUCT}")
    return_documents: bool | None = Field(None, description="Echo each document's text.")


class CompatibleReply(BaseModel):
    id: str
    object: str = "list"
    model: str
    results: list[Result]
    usage: Usage
    meta: dict[str, Any] | None = Field(None, description="Only with warnings: each deviation from the request.")


class OpenAIError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class CompatibleError(BaseModel):
    """Both shapes on record: nested for the openai SDK, flat for LiteLLM and the dashscope SDK."""

    error: OpenAIError
    code: str
    message: str
    request_id: str


class DashScopeCompatible(Api[CompatibleBody]):
    """`POST /compatible-api/v1/reranks`, and `/v1/reranks` as resellers have it.

    Args:
        documents_by_default: what `return_documents` is when it is left out. Qwen Cloud's reference shows every
            document without being asked; EmpirioLabs documents `false`.
    """

    facts = FACTS["dashscope-compatible"]
    body = CompatibleBody
    reply_body = CompatibleReply
    error_body = CompatibleError
    errors = COMPATIBLE_ERRORS

    def __init__(self, settings: ApiSettings, *, documents_by_default: bool = True) -> None:
        super().__init__(settings)
        self._documents_by_default = documents_by_default

    def at(self, path: str) -> DashScopeCompatible:
        return self if path == self.facts.path else DashScopeCompatible(self.settings, documents_by_default=False)

    @property
    def max_documents(self) -> int:
        """DashScope has a setting of its own."""
        return self.settings.max_documents

    def parse(self, body: CompatibleBody) -> Call:
        asked = body.return_documents
        show = Show(self._documents_by_default if asked is None else asked)
        return _call(body, body, self.settings, body.model, show)

    def reply(self, answer: Answer) -> JSON:
        reply: JSON = {
            "id": answer.id,
            "object": "list",
            "model": answer.model,
            "results": _results(answer),
            "usage": _usage(answer),
        }
        if answer.warnings:
            reply["meta"] = {"warnings": list(answer.warnings)}
        return reply

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        message = WRONG_KEY if isinstance(error, WrongKey) else _message(error, "")
        if isinstance(error, OutOfCredit):
            message = f"You exceeded your current quota, please check your plan and billing details. {message}"
        problems = error.problems if isinstance(error, InvalidRequest) else ()
        nested = {
            "message": message,
            "type": COMPATIBLE_ERRORS.word(error).type,
            "param": problems[0][0] or None if problems else None,
            "code": COMPATIBLE_ERRORS.word(error).code,
        }
        body = {"error": nested, "code": NATIVE_ERRORS.word(error), "message": message, "request_id": request_id}
        return COMPATIBLE_ERRORS.status(error), body
