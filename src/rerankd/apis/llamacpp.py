"""llama.cpp's rerank, in its own form and in that of text-embeddings-inference.

Sources: llama.cpp `tools/server`, recorded replies of a llama-server.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, RootModel

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.errors import BodyTooLarge
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, Document, InstructBody, ListOf, OwnFields, Usage
from rerankd.errors import InvalidRequest, Problem, PromptTooLong, RerankdError, Unauthorized

ERRORS = ErrorTable(
    {BodyTooLarge: 413},
    {
        400: "invalid_request_error",
        PromptTooLong: "exceed_context_size_error",
        401: "authentication_error",
        402: "permission_error",
        403: "permission_error",
        429: "unavailable_error",
        500: "server_error",
        503: "unavailable_error",
    },
)


TEXTS = "texts"
"""The field that selects the bare list of text-embeddings-inference as the reply."""


class Body(InstructBody):
    """`documents`, or `texts`: the key `texts` selects the bare list, whatever is scored."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "What is a panda?", "documents": ["hi", "The giant panda is a bear of China."]}]
        }
    )

    query: str
    documents: ListOf[Document] | None = None
    texts: ListOf[Document] | None = None
    top_n: int | None = Field(None, ge=0, description="How many results to return, 0 for none; all by default.")
    return_text: bool | None = Field(None, description="With `texts`: echo each text; false by default.")
    model: str | None = Field(None, description="Any name; echoed, the one served model answers.")


class Result(OwnFields):
    index: int
    relevance_score: float


class Reply(BaseModel):
    model: str
    object: str = "list"
    usage: Usage
    results: list[Result]


class Rank(OwnFields):
    index: int
    score: float
    text: str | None = None


class Replies(RootModel[Reply | list[Rank]]):
    """The bare list answers `texts`."""


class ErrorObject(BaseModel):
    code: int
    message: str
    type: str


class Error(BaseModel):
    error: ErrorObject


class LlamaCpp(Api[Body]):
    """`POST /rerank`, `/reranking`, `/v1/rerank`, `/v1/reranking`."""

    facts = FACTS["llamacpp"]
    body = Body
    reply_body = Replies
    error_body = Error
    errors = ERRORS
    any_model = True

    def parse(self, body: Body) -> Call:
        documents = body.texts if body.documents is None else body.documents
        if not documents:
            missing = Problem("documents", "Field required", "missing")
            raise InvalidRequest("The request has no documents.", [missing, *body.unknown_fields()])
        limits = self.limits(on_overlong="truncate" if self.settings.truncate_overlong else "refuse")
        show = Show(bool(body.return_text), at_most=body.top_n, form=TEXTS if TEXTS in body.model_fields_set else "")
        return self.call(body, body.query, documents, limits=limits, model=body.model, show=show)

    def reply(self, answer: Answer) -> JSON | list[JSON]:
        if answer.show.form == TEXTS:
            return [
                answer.result(
                    score,
                    index=score.index,
                    score=score.score,
                    **({"text": score.document} if answer.show.documents else {}),
                )
                for score in answer.ranked
            ]
        return {
            "model": answer.model,
            "object": "list",
            "usage": answer.openai_usage,
            "results": [
                answer.result(score, index=score.index, relevance_score=score.score) for score in answer.ranked
            ],
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        status = ERRORS.status(error)
        return status, {"error": {"code": status, "message": _message(error), "type": ERRORS.word(error)}}


def _message(error: RerankdError) -> str:
    """llama.cpp's sentence where it has one, then what exactly was wrong."""
    if isinstance(error, Unauthorized):
        return "Invalid API Key"
    if isinstance(error, PromptTooLong) and error.part != "instruct" and error.limit is not None:
        return f"request exceeds the available context size ({error.limit} tokens): document {error.index} is too long"
    if not isinstance(error, InvalidRequest) or not error.problems:
        return str(error)
    first = error.problems[0]
    sentence = ""
    if first.path == "query":
        sentence = '"query" must be provided. ' if first.kind == "missing" else '"query" must be a string. '
    elif first.path.startswith(("documents", "texts")):
        sentence = '"documents" must be a non-empty string array. '
    return f"{sentence}{error.details}"
