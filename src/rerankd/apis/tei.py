"""Hugging Face text-embeddings-inference: `/rerank` and `/predict`.

Sources: text-embeddings-inference `router/src/http/types.rs` and `server.rs`, its OpenAPI description, its test
`test_http_rerank.rs`. Its limit of 32 texts is a setting of that server, not of the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, RootModel

from rerankd.apis.base import Answer, Api, Call, ErrorTable, Show
from rerankd.apis.errors import BodyTooLarge, NotJSON
from rerankd.apis.facts import FACTS
from rerankd.apis.fields import JSON, Document, InstructBody, ListOf, OwnFields
from rerankd.apis.status import ServerView, StatusRoute
from rerankd.errors import Busy, InvalidRequest, PromptTooLong, RerankdError, TooManyDocuments, Unauthorized
from rerankd.version import __version__

BATCH = "batch"
"""The form of a reply to a list of pairs."""

LABEL = "LABEL_0"
"""The one class of a reranker, as transformers names it."""

LABELS = {"id2label": {"0": LABEL}, "label2id": {LABEL: 0}}


class _Empty(InvalidRequest):
    """A list without an item."""


ERRORS = ErrorTable(
    {RerankdError: 424, InvalidRequest: 422, _Empty: 400, NotJSON: 400, BodyTooLarge: 413, Busy: 429},
    {_Empty: "Empty", 400: "Validation", 424: "Backend", 500: "Backend", 429: "Overloaded", 503: "Unhealthy"},
)


def _side(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class _Options(InstructBody):
    """The fields that both routes share."""

    truncate: bool | None = Field(
        None, description="false refuses a prompt over the served context, which is cut otherwise, never the template."
    )
    truncation_direction: Annotated[Literal["left", "right"] | None, BeforeValidator(_side)] = Field(
        None, description="The end of a text that is cut off, in small or capital letters; right by default."
    )
    raw_scores: bool | None = Field(None, description="true returns logits in place of scores in [0, 1].")


class RerankBody(_Options):
    query: str = Field(examples=["What is Deep Learning?"])
    texts: ListOf[Document] = Field(
        examples=[["Deep Learning is a kind of machine learning.", "Cheese is made of milk."]]
    )
    return_text: bool | None = Field(None, description="Echo each text; false by default.")
    top_n: int | None = Field(None, ge=0, description="rerankd's own: how many to return; 0 or left out: all.")


class PredictBody(_Options):
    inputs: str | tuple[str, str] | ListOf[ListOf[str]] = Field(
        description="One pair of texts, or a list of pairs. A single text cannot be scored by a reranker.",
        examples=[[["What is Deep Learning?", "Deep Learning is a kind of machine learning."], ["Is it old?", "No."]]],
    )


class Rank(OwnFields):
    index: int
    text: str | None = None
    score: float


class Prediction(OwnFields):
    score: float
    label: str


class Predictions(RootModel[list[Prediction] | list[list[Prediction]]]):
    """One for the one pair; a list of one for each of a list of pairs."""


class Error(BaseModel):
    """A missing or wrong key has an empty body."""

    error: str
    error_type: str


BodyT = TypeVar("BodyT", bound=_Options)


class _TEI(Api[BodyT]):
    """The base of both routes: errors, and usage in headers."""

    error_body = Error
    errors = ERRORS
    any_model = True

    def headers(self, answer: Answer) -> Mapping[str, str]:
        prompts = [score.prompt for score in answer.ranking.scores if score.prompt]
        milliseconds = str(round(answer.seconds * 1000))
        return {
            "x-compute-type": answer.info.device,
            "x-compute-time": milliseconds,
            "x-compute-characters": str(sum(len(prompt.query) + len(prompt.document) for prompt in prompts)),
            "x-compute-tokens": str(answer.usage.prompt_tokens),
            "x-total-time": milliseconds,
            "x-tokenization-time": str(round(answer.encode_seconds * 1000)),
            "x-queue-time": "0",  # part of the next one
            "x-inference-time": str(round(answer.engine_seconds * 1000)),
        }

    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON | None]:
        status = ERRORS.status(error)
        if isinstance(error, Unauthorized):
            return status, None
        message = error.details if isinstance(error, InvalidRequest) else str(error)
        if isinstance(error, TooManyDocuments):
            message = f"batch size {error.count} > maximum allowed batch size {error.limit}. {error}"
        if isinstance(error, PromptTooLong) and error.part != "instruct" and error.limit is not None:
            message = (
                f"`inputs` must have less than {error.limit} tokens: text {error.index} has more. Allow `truncate`."
            )
        return status, {"error": message, "error_type": ERRORS.word(error)}

    def _call(self, queries: tuple[str, ...], texts: tuple[str, ...], body: BodyT, show: Show) -> Call:
        limits = self.limits(
            on_overlong="refuse" if body.truncate is False else "truncate",
            truncation_side=body.truncation_direction or "right",
        )
        return self.call(body, queries, texts, limits=limits, show=replace(show, logits=bool(body.raw_scores)))


class TEIRerank(_TEI[RerankBody]):
    """`POST /rerank`."""

    facts = FACTS["tei"]
    body = RerankBody
    reply_body = list[Rank]

    def claims(self, given: Mapping[str, bool]) -> bool:
        return given.get("texts", False)

    def parse(self, body: RerankBody) -> Call:
        if not body.texts:
            raise _Empty("`texts` cannot be empty")
        show = Show(bool(body.return_text), at_most=body.top_n or None)
        return self._call((body.query,), tuple(body.texts), body, show)

    def reply(self, answer: Answer) -> list[JSON]:
        # Ties come out reversed, as the repository's own test has it.
        ranked = sorted(answer.ranking.ranked, key=lambda score: (score.raw_score, score.index), reverse=True)
        return [
            answer.result(
                score,
                index=score.index,
                **({"text": score.document} if answer.show.documents else {}),
                score=answer.value(score),
            )
            for score in ranked[: answer.show.at_most]
        ]

    def status_routes(self) -> tuple[StatusRoute, ...]:
        info = StatusRoute("/info", "The served model, as in text-embeddings-inference", self._info, (401, 503), True)
        health = StatusRoute("/tei", "Whether the server can answer requests", _health, is_empty=True)
        return (
            info,
            replace(info, path="/tei/info"),
            health,
            replace(health, path="/tei/health"),
            replace(health, path="/tei/ping"),
        )

    def _info(self, server: ServerView, _: str) -> JSON:
        """A field is null where this server has no such limit."""
        info = server.info
        return {
            "model_id": info.name,
            "model_sha": None,
            "model_dtype": info.dtype,
            "served_model_name": info.name,
            "model_type": {"reranker": LABELS},
            "max_concurrent_requests": server.max_queue,
            "max_input_length": min(info.max_tokens, self.settings.max_context),
            "max_batch_tokens": server.max_batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": self.settings.max_call_documents,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }


def _health(server: ServerView, _: str) -> None:
    server.info  # noqa: B018  # raises Loading


class TEIPredict(_TEI[PredictBody]):
    """`POST /predict`: pairs that need not share a query, in the call's order."""

    facts = FACTS["tei-predict"]
    body = PredictBody
    reply_body = Predictions

    def claims(self, given: Mapping[str, bool]) -> bool:
        return given.get("inputs", False)

    def parse(self, body: PredictBody) -> Call:
        batch = body.inputs if isinstance(body.inputs, list) else [body.inputs]
        if not batch:
            raise _Empty("`inputs` cannot be empty")
        queries, texts = zip(*(_pair(item, index) for index, item in enumerate(batch)), strict=True)
        return self._call(queries, texts, body, Show(form=BATCH if isinstance(body.inputs, list) else ""))

    def reply(self, answer: Answer) -> list[JSON] | list[list[JSON]]:
        rows = [answer.result(score, score=answer.value(score), label=LABEL) for score in answer.ranking.scores]
        return [[row] for row in rows] if answer.show.form == BATCH else rows


def _pair(item: str | tuple[str, ...] | list[str], index: int) -> tuple[str, str]:
    if isinstance(item, str) or len(item) != 2:
        problem = "a reranker scores pairs: send [query, text]"
        raise InvalidRequest(f"`inputs` {index}: {problem}.", [(f"inputs.{index}", problem)])
    return item[0], item[1]
