"""vLLM's score: one score for each pair of texts, in the call's order."""

from __future__ import annotations

import time

from pydantic import BaseModel, ConfigDict

from rerankd.apis.base import Answer, Api, Call
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, OwnFields, document_texts
from rerankd.apis.vllm import ERRORS, ErrorObject, Options, Side, VLLMUsage, as_list, error_object, read
from rerankd.errors import InvalidRequest, Problem, RerankdError, Unauthorized

SIDES = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))


class Body(Options):
    """The first pair of sides that is there counts: queries + documents, queries + items, data_1 + data_2, or
    text_1 + text_2."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "queries": ["What is the capital of China?", "Explain gravity"],
                    "documents": ["The capital of China is Beijing.", "Gravity is a force."],
                }
            ]
        }
    )

    queries: Side | None = None
    documents: Side | None = None
    items: Side | None = None
    data_1: Side | None = None
    data_2: Side | None = None
    text_1: Side | None = None
    text_2: Side | None = None

    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts of both sides.

        Raises:
            InvalidRequest: no pair of sides is complete.
        """
        for left, right in SIDES:
            queries, documents = getattr(self, left), getattr(self, right)
            if queries is not None and documents is not None:
                return document_texts(as_list(queries), left), document_texts(as_list(documents), right)
        pairs = ", ".join(f"{left} and {right}" for left, right in SIDES)
        wanted = (name for name in SIDES[0] if getattr(self, name) is None)
        missing = [Problem(name, "Field required", "missing") for name in wanted]
        raise InvalidRequest(f"Both sides are needed: {pairs}.", missing + self.unknown_fields())


class ScoreRow(OwnFields):
    index: int
    object: str = "score"
    score: float


class ScoreUsage(VLLMUsage):
    prompt_tokens_details: None = None
    completion_tokens_details: None = None


class Reply(BaseModel):
    id: str
    object: str = "list"
    created: int
    model: str
    data: list[ScoreRow]
    usage: ScoreUsage


class Error(BaseModel):
    """`error` is the bare string `Unauthorized` for a missing or wrong key."""

    error: ErrorObject | str


class VLLMScore(Api[Body]):
    """`POST /v1/score`, `/score`: one score a pair, in the call's order."""

    facts = FACTS["vllm-score"]
    json_only = True
    errors = ERRORS
    body = Body
    reply_body = Reply
    error_body = Error

    def parse(self, body: Body) -> Call:
        return read(*body.sides(), body, self.settings, None)

    def reply(self, answer: Answer) -> JSON:
        tokens = answer.usage.prompt_tokens
        return {
            "id": f"score-{answer.id}",
            "object": "list",
            "created": int(time.time()),
            "model": answer.model,
            "data": [
                answer.result(score, index=score.index, object="score", score=answer.value(score))
                for score in answer.ranking.scores
            ],
            "usage": {
                "prompt_tokens": tokens,
                "total_tokens": tokens,
                "completion_tokens": 0,
                "prompt_tokens_details": None,
                "completion_tokens_details": None,
            },
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        unauthorized = isinstance(error, Unauthorized)
        return ERRORS.status(error), {"error": "Unauthorized" if unauthorized else error_object(error)}
