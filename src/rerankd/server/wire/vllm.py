"""vLLM's rerank and score, as HexGrid's page documents them and vLLM 0.32 answers them.

Sources: vLLM `entrypoints/pooling/scoring/protocol.py`, recorded replies of a vLLM 0.32 server. `/v1/rerank` is
claimed by many services, so its errors carry the keys that the clients of each of them read.
"""

from __future__ import annotations

import re
import time
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from rerankd.config import ServerSettings
from rerankd.errors import (
    BodyTimeout,
    InferenceError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    RerankdError,
    Unauthorized,
    Unavailable,
)
from rerankd.server.wire.dialect import JSON, Answer, Call, Dialect, Document, ErrorTable, RequestBody
from rerankd.types import DEFAULT_INSTRUCT, Limits, Pair, RerankRequest, Score

LIFTED = re.compile(r"\s*Instruct:[ \t]*(?P<instruct>\S.*?)\s*\n\s*Query:[ \t]*(?P<query>.*)", re.DOTALL)
"""The embedding model's way of writing an instruct, which HexGrid's page recommends inside the query."""


class _Row(NamedTuple):
    status: int
    type: str
    code: str  # for readers of the flat shape


ERRORS = ErrorTable(
    {
        RerankdError: _Row(500, "InternalServerError", "InternalError"),
        InferenceError: _Row(500, "InternalServerError", "InternalError"),
        InvalidRequest: _Row(400, "BadRequestError", "InvalidParameter"),
        BodyTimeout: _Row(408, "BadRequestError", "RequestTimeOut"),
        MethodNotAllowed: _Row(405, "BadRequestError", "InvalidParameter"),
        Unauthorized: _Row(401, "Unauthorized", "InvalidApiKey"),
        ModelNotFound: _Row(404, "NotFoundError", "ModelNotFound"),
        Unavailable: _Row(503, "Service Unavailable", "ServiceUnavailable"),
    }
)


def _error(error: RerankdError) -> tuple[_Row, JSON]:
    """vLLM's error object."""
    row = ERRORS[error]
    nested: JSON = {"message": str(error), "type": row.type, "param": None, "code": row.status}
    if isinstance(error, InvalidRequest) and error.problems:
        lines = [f"  {{'loc': 'body.{path}', 'msg': '{problem}'}}" for path, problem in error.problems]
        plural = "s" if len(lines) > 1 else ""
        nested["message"] = f"{len(lines)} validation error{plural}:\n" + "\n".join(lines)
        nested["type"] = "Bad Request"
        nested["param"] = f"body.{error.problems[0][0]}".rstrip(".")
    return row, nested


class _Options(RequestBody):
    """The fields that rerank and score share."""

    model: str | None = Field(None, description="A served name; any, when left out.")
    user: str | None = Field(None, description="Accepted; of no effect.")
    instruct: str | None = Field(None, description=f"Sorting task. Default: {DEFAULT_INSTRUCT}")
    instruction: str | None = Field(None, description="The same under vLLM's name.")
    use_activation: bool | None = Field(None, description="false returns logits in place of scores in [0, 1].")
    truncate_prompt_tokens: int | None = Field(
        None,
        ge=-1,
        description="Longest prompt in tokens, -1: the served context. The document is cut, then the query.",
    )

    def limits(self, max_context: int) -> Limits:
        """The served context, refused or cut as the caller asks."""
        asked = self.truncate_prompt_tokens
        if asked is None:
            return Limits(max_prompt_tokens=max_context, overlong_prompt="refuse")
        if asked > max_context:
            raise InvalidRequest(
                f"truncate_prompt_tokens value is greater than max_model_len ({max_context}). Please request a "
                "smaller truncation size."
            )
        return Limits(max_prompt_tokens=max_context if asked < 1 else asked)

    def value(self, score: Score) -> float:
        return score.logit if self.use_activation is False else score.score


def _read(
    queries: list[str], documents: list[str], body: _Options, settings: ServerSettings, top_n: int | None
) -> Call:
    """Pairs 1:1, 1:N or N:N; an instruct written into a query is lifted out."""
    if not documents:
        raise InvalidRequest("At least one text_pair element must be given")
    if not queries:
        raise InvalidRequest("At least one text element must be given")
    if len(queries) not in (1, len(documents)):
        raise InvalidRequest("Input lengths must be either 1:1, 1:N or N:N")
    instruct = body.instruct or body.instruction
    warnings: tuple[str, ...] = ()
    if body.instruct and body.instruction and body.instruct != body.instruction:
        warnings = ("instruction ignored: instruct says something else",)
    if settings.lift_instruct and not instruct and (lifted := _lift(queries)):
        instruct, queries = lifted
        warnings = (f"instruction lifted out of the query: {instruct!r}; send it as `instruction`",)
    if len(queries) == 1:
        queries = queries * len(documents)
    pairs = tuple(Pair(query, document) for query, document in zip(queries, documents, strict=True))
    limits = body.limits(settings.max_context)
    return Call(RerankRequest(pairs, instruct or DEFAULT_INSTRUCT, top_n, limits), body.model or None, warnings)


def _lift(queries: list[str]) -> tuple[str, list[str]] | None:
    """(instruct, bare queries) if all queries carry one and the same instruct."""
    found = [LIFTED.fullmatch(query) for query in queries]
    matches = [match for match in found if match]
    if len(matches) < len(queries) or len({match["instruct"] for match in matches}) != 1:
        return None
    return matches[0]["instruct"], [match["query"] for match in matches]


# The bodies, as the API's description shows them.


class RerankBody(_Options):
    query: str = Field(examples=["What is the capital of China?"])
    documents: list[Document] | Document = Field(examples=[["The capital of China is Beijing.", "Gravity is a force."]])
    top_n: int | None = Field(None, ge=0, description="How many results to return; 0 or left out: all.")


class ResultDocument(BaseModel):
    text: str


class Result(BaseModel):
    index: int
    document: ResultDocument
    relevance_score: float


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class RerankReply(BaseModel):
    id: str
    model: str
    usage: Usage
    results: list[Result]
    meta: dict[str, Any] | None = Field(None, description="Only with warnings: what was not done as asked.")


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class UnionError(BaseModel):
    """What the clients of vLLM, Cohere, Jina, Voyage and DashScope read, side by side."""

    error: ErrorObject
    message: str
    detail: str
    code: str
    request_id: str
    id: str


class Rerank(Dialect[RerankBody]):
    """`POST /v1/rerank`, `/rerank`, `/v2/rerank`."""

    name = "vllm-rerank"
    summary = "Rerank (vLLM)"
    json_only = True
    body = RerankBody
    reply_body = RerankReply
    error_body = UnionError

    def parse(self, body: RerankBody) -> Call:
        documents = [body.documents] if isinstance(body.documents, str) else body.documents
        return _read([body.query], documents, body, self.settings, body.top_n or None)

    def reply(self, body: RerankBody, answer: Answer) -> JSON:
        tokens = answer.ranking.usage.prompt_tokens
        reply: JSON = {
            "id": f"rerank-{answer.id}",
            "model": answer.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "results": [
                {"index": score.index, "document": {"text": score.document}, "relevance_score": body.value(score)}
                for score in answer.ranking.ranked
            ],
        }
        if answer.warnings:
            reply["meta"] = {"warnings": list(answer.warnings)}
        return reply

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        row, nested = _error(error)
        message = nested["message"]
        flat = {"message": message, "detail": message, "code": row.code, "request_id": request_id, "id": request_id}
        return row.status, {"error": nested, **flat}


class ScoreBody(_Options):
    queries: list[str] | str = Field(examples=[["What is the capital of China?", "Explain gravity"]])
    documents: list[Document] | Document = Field(examples=[["The capital of China is Beijing.", "Gravity is a force."]])


class ScoreRow(BaseModel):
    index: int
    object: str = "score"
    score: float


class ScoreUsage(Usage):
    completion_tokens: int = 0


class ScoreReply(BaseModel):
    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ScoreRow]
    usage: ScoreUsage


class ScoreError(BaseModel):
    """`error` is the bare string `Unauthorized` for a missing or wrong key."""

    error: ErrorObject | str


class ScorePairs(Dialect[ScoreBody]):
    """`POST /v1/score`, `/score`: one score a pair, in the call's order."""

    name = "vllm-score"
    summary = "Score pairs (vLLM)"
    json_only = True
    body = ScoreBody
    reply_body = ScoreReply
    error_body = ScoreError

    def parse(self, body: ScoreBody) -> Call:
        queries = [body.queries] if isinstance(body.queries, str) else body.queries
        documents = [body.documents] if isinstance(body.documents, str) else body.documents
        return _read(queries, documents, body, self.settings, None)

    def reply(self, body: ScoreBody, answer: Answer) -> JSON:
        tokens = answer.ranking.usage.prompt_tokens
        return {
            "id": f"score-{answer.id}",
            "object": "list",
            "created": int(time.time()),
            "model": answer.model,
            "data": [
                {"index": score.index, "object": "score", "score": body.value(score)} for score in answer.ranking.scores
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        row, nested = _error(error)
        return row.status, {"error": "Unauthorized" if isinstance(error, Unauthorized) else nested}
