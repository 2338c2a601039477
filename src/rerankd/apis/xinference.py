"""Xinference's rerank.

Sources: github.com/xorbitsai/inference (`api/schemas/requests.py`, `model/rerank`), `xinference-client` 4.1.0.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import (
    JSON,
    EchoedDocument,
    InstructBody,
    ListOf,
    ObjectDocument,
    OwnFields,
    PassageOptions,
    chunks_asked,
    document_text,
    document_texts,
    first_given,
    ignored_keys,
)
from rerankd.apis.status import ServerView, StatusRoute
from rerankd.errors import InvalidRequest, ModelNotFound, RerankdError
from rerankd.types import DEFAULT_INSTRUCT, ModelInfo

WITH_TOKENS = "with tokens"
"""The form of a reply with `return_len`."""


# The bodies, as the API's description shows them.


class Body(InstructBody):  # type: ignore[no-redef]  # pydantic's plugin has a `kwargs` of its own
    model: str = Field(examples=["qwen3-rerank"])
    query: ObjectDocument = Field(examples=["What is the capital of China?"])
    documents: ListOf[ObjectDocument] = Field(
        min_length=1, examples=[["The capital of China is Beijing.", "Gravity is a force."]]
    )
    top_n: int | None = Field(None, ge=0, description="How many results to return; 0 or left out: all.")
    return_documents: bool | None = Field(None, description="Echo each document; false by default.")
    return_len: bool | None = Field(None, description="Count the tokens in `meta.tokens`; false by default.")
    max_chunks_per_doc: int | None = Field(
        None, description="The most passages of a document that is longer than the served context."
    )
    kwargs: str | None = Field(
        None, description="A JSON object; its key `instruction` or `instruct` is the instruct.", examples=["{}"]
    )

    def instruct_asked(self) -> tuple[str, tuple[str, ...]]:
        """The instruct, which may be in `kwargs`, and a warning for whatever else is there."""
        kwargs = self._kwargs()
        names = ("instruction", "instruct")
        in_kwargs = {f"kwargs.{name}": kwargs[name] for name in names if name in kwargs}
        said, warnings = first_given({**in_kwargs, "instruct": self.instruct, "instruction": self.instruction})
        return said or DEFAULT_INSTRUCT, warnings + ignored_keys("kwargs", (key for key in kwargs if key not in names))

    def passages_asked(self) -> PassageOptions | bool | None:
        """See `RequestBody.passages_asked`."""
        return chunks_asked(self.passages, self.max_chunks_per_doc)

    def _kwargs(self) -> dict[str, Any]:
        try:
            parsed = json.loads(self.kwargs or "{}")
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            problem = ("kwargs", "Input should be a JSON object, written as a string")
            raise InvalidRequest("kwargs is not a JSON object.", (problem,))
        return parsed


class Result(OwnFields):
    index: int
    relevance_score: float = Field(ge=0, le=1)
    document: EchoedDocument | None = Field(description="null unless `return_documents`.")


class Tokens(BaseModel):
    input_tokens: int
    output_tokens: int


class Meta(BaseModel):
    api_version: None
    billed_units: None
    tokens: Tokens | None = Field(description="null unless `return_len`.")
    warnings: list[str] | None = Field(description="Each deviation from the request.")


class Reply(BaseModel):
    id: str
    results: list[Result]
    meta: Meta


class Error(BaseModel):
    detail: str


class Xinference(Api[Body]):
    """`POST /v1/rerank`."""

    facts = FACTS["xinference"]
    body = Body
    reply_body = Reply
    error_body = Error
    errors = ErrorTable({ModelNotFound: 400})

    def parse(self, body: Body) -> Call:
        query = document_text(body.query, "query")
        documents = document_texts(body.documents, "documents")
        show = Show(bool(body.return_documents), body.documents, form=WITH_TOKENS if body.return_len else "")
        return self.call(body, query, documents, body.top_n or None, model=body.model, show=show)

    def reply(self, answer: Answer) -> JSON:
        num_tokens = answer.usage.prompt_tokens
        tokens = {"input_tokens": num_tokens, "output_tokens": num_tokens}  # as its own engines count them
        return {
            "id": answer.id,
            "results": [
                answer.result(
                    score,
                    index=score.index,
                    relevance_score=score.score,
                    **{"document": None, **answer.document(score)},
                )
                for score in answer.ranking.ranked
            ],
            "meta": {
                "api_version": None,
                "billed_units": None,
                "tokens": tokens if answer.show.form == WITH_TOKENS else None,
                "warnings": list(answer.warnings) or None,
            },
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        return self.errors.status(error), {"detail": error.details if isinstance(error, InvalidRequest) else str(error)}

    def status_routes(self) -> tuple[StatusRoute, ...]:
        """Its client asks these before its first request: whether to send its key, and the kind of a model."""
        return (
            StatusRoute(
                "/xinference/v1/cluster/auth", "Whether the server asks for a key, as in Xinference", _auth, ()
            ),
            StatusRoute(
                "/xinference/v1/models", "The served model's names, as in Xinference", _models, (401, 503), True
            ),
            StatusRoute(
                "/xinference/v1/models/{name:path}", "A model, as in Xinference", _model, (400, 401, 503), True
            ),
        )


def _auth(server: ServerView, _: str) -> JSON:
    return {"auth": server.needs_key}


def _models(server: ServerView, _: str) -> JSON:
    data = [{"id": name, "object": "model", **_card(name, info)} for name, info in server.names.items()]
    return {"object": "list", "data": data}


def _model(server: ServerView, name: str) -> JSON:
    return _card(name, server.find(name))


def _card(name: str, info: ModelInfo) -> JSON:
    return {"model_type": "rerank", "model_uid": name, "model_name": info.name, "replica": 1}
