"""The base of every API: a request, a reply, errors and paths. Knows no HTTP library and no single API."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from rerankd.apis.errors import BodyTimeout, MethodNotAllowed, UnsupportedEncoding
from rerankd.apis.explained import explained
from rerankd.apis.facts import ApiFacts
from rerankd.apis.fields import JSON, Explain, InstructBody, ObjectDocument, PassageOptions, RequestBody, echo
from rerankd.apis.status import StatusRoute
from rerankd.errors import (
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    OutOfCredit,
    RateLimited,
    RerankdError,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
    UpstreamLoop,
    UpstreamTimeout,
)
from rerankd.ranking import explanation
from rerankd.types import MAX_PASSAGES, Limits, ModelInfo, Passages, Ranking, RerankRequest, Score, TokenCounts

Reply = JSON | list[JSON] | list[list[JSON]]
BodyT = TypeVar("BodyT", bound=RequestBody)
Word = TypeVar("Word")


@dataclass(frozen=True, slots=True)
class Show:
    """How the reply shows the results.

    Attributes:
        documents: Whether the reply has them.
        sent: The documents as the caller sent them, where the reply has them so.
        logits: In place of scores.
        at_most: Number of results; None for all of the ranking.
        starts: Where each document begins in the text that was sent; empty: all at its start.
        form: Of the reply, where the API has several.
    """

    documents: bool = False
    sent: Sequence[ObjectDocument] = ()
    logits: bool = False
    at_most: int | None = None
    form: str = ""
    starts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Call(RerankRequest):
    """A body, translated: what to rank, and what else its reply needs.

    Attributes:
        model: The requested name; None for any.
        id: The caller's id of this request.
        explain, min_score, calibration, cascade: See `RequestBody`.
        shown_passages: Of each result.
        deadline_ms: See `RequestBody`.
    """

    model: str | None = None
    warnings: tuple[str, ...] = ()
    id: str | None = None
    explain: Explain | bool | None = None
    show: Show = Show()
    shown_passages: int = 0
    min_score: float | str | None = None
    calibration: str | None = None
    deadline_ms: int | None = None
    cascade: bool | int | None = None


DOCUMENTS_A_SEARCH_UNIT = 100
"""Cohere's unit of billing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that a reply is made from.

    Attributes:
        id: Of this request.
        model: The name to echo.
        usage: The tokens of all its prompts.
        info: The model that scored.
        explain: Whether each result is explained.
        prompts: By index, those that the caller asked for.
        seconds: Since the request came.
        encode_seconds: Of them, for the prompts.
        engine_seconds: Of them, in the engine, waiting included.
        show: Of the call.
        shown_passages: Of each result.
    """

    id: str
    model: str
    ranking: Ranking
    usage: TokenCounts
    warnings: tuple[str, ...]
    info: ModelInfo
    explain: bool = False
    prompts: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    encode_seconds: float = 0.0
    engine_seconds: float = 0.0
    show: Show = Show()
    shown_passages: int = 0

    @property
    def ranked(self) -> tuple[Score, ...]:
        """The results to show, best first."""
        return self.ranking.ranked[: self.show.at_most]

    @property
    def openai_usage(self) -> JSON:
        """OpenAI's usage object: the tokens of the prompts, template included."""
        tokens = self.usage.prompt_tokens
        return {"prompt_tokens": tokens, "total_tokens": tokens}

    @property
    def search_units(self) -> int:
        """Cohere's unit: a query with up to 100 documents. Each scored passage and sentence counts as a document."""
        scored = [score for score in self.ranking.scores if score.scored]
        sentences = sum(len(passage.sentences) for score in scored for passage in score.passages)
        documents = sum(max(1, score.num_passages) for score in scored) + sentences
        return -(-documents // DOCUMENTS_A_SEARCH_UNIT)

    def value(self, of: Score) -> float:
        """The score, or the logit if the caller asked for it."""
        return of.raw_score if self.show.logits else of.score

    def document(self, of: Score) -> JSON:
        """`document` as an object with all keys that were sent; nothing where documents are not shown."""
        return {"document": echo(self.show.sent[of.index], of.document)} if self.show.documents else {}

    def result(self, of: Score, /, **fields: Any) -> JSON:
        """One entry of a result list: the API's fields, and ours that the caller asked for."""
        if not of.scored:
            return {**fields, "scored": False}
        if self.shown_passages and of.num_passages:
            start = self.show.starts[of.index] if self.show.starts else 0
            shown = [passage.moved(start).to_dict() for passage in of.passages[: self.shown_passages]]
            fields |= {"passages": shown, "num_passages": of.num_passages}
        if not self.explain:
            return fields
        prompt = {"prompt": self.prompts[of.index]} if of.index in self.prompts else {}
        return {**fields, "explain": {**explained(of.explanation or explanation(of, self.info)), **prompt}}


Statuses = Mapping[type[RerankdError], int]

DEFAULT_STATUSES: Statuses = {
    RerankdError: 500,
    InvalidRequest: 400,
    Unauthorized: 401,
    OutOfCredit: 402,
    Forbidden: 403,
    ModelNotFound: 404,
    MethodNotAllowed: 405,
    BodyTimeout: 408,
    UnsupportedEncoding: 415,
    RateLimited: 429,
    UpstreamFailed: 502,
    Unavailable: 503,
    UpstreamTimeout: 504,
    UpstreamLoop: 508,
}
"""An error that is not listed has the status of the nearest class above it."""


class ErrorTable(Generic[Word]):
    """The status of each error, and the words that an API has for it.

    Args:
        statuses: those that differ from the default ones.
        words: by the limit's kind (of RateLimited), by class, or by status; the first that is listed counts, in this
            order. 400 and 500 stand for the other statuses of their hundred.
    """

    def __init__(self, statuses: Statuses | None = None, words: Mapping[str | type | int, Word] | None = None) -> None:
        self._statuses = {**DEFAULT_STATUSES, **(statuses or {})}
        self._words = words or {}

    def status(self, error: RerankdError) -> int:
        return next(self._statuses[kind] for kind in type(error).__mro__ if kind in self._statuses)

    def word(self, error: RerankdError) -> Word:
        return next(self._words[key] for key in self._keys(error) if key in self._words)

    def statuses(self, without: Collection[type[RerankdError]] = ()) -> tuple[int, ...]:
        """In ascending order. without: errors that do not occur."""
        return tuple(sorted({status for kind, status in self._statuses.items() if kind not in without}))

    def _keys(self, error: RerankdError) -> Iterator[str | type | int]:
        if isinstance(error, RateLimited):
            yield error.kind
        status = self.status(error)
        yield from type(error).__mro__
        yield from (status, status // 100 * 100)


FLAT_CODES: Mapping[str | type | int, str] = {
    400: "InvalidParameter",
    401: "InvalidApiKey",
    403: "Model.AccessDenied",
    404: "ModelNotFound",
    408: "RequestTimeOut",
    500: "InternalError",
    503: "ServiceUnavailable",
    OutOfCredit: "Arrearage",
    "requests": "Throttling.RateQuota",
    "tokens": "Throttling.AllocationQuota",
    "concurrency": "Throttling.Concurrency",
}
"""DashScope's codes; the errors of `/v1/rerank` have them, too, since DashScope's clients ask there."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The server's settings that change what an API accepts or where it is; see `config.ServerSettings`."""

    max_documents: int = 500
    max_call_documents: int = 10_000
    max_text_tokens: int = 4_000
    max_total_tokens: int = 120_000
    max_context: int = 8_192
    truncate_overlong: bool = False
    refuse_long_texts: bool = False
    lift_instruct: bool = True
    trust_priority: bool = False
    infinity_prefix: str = "/infinity"
    passage_tokens: int | None = None
    passage_overlap: int | None = None
    max_passages: int = MAX_PASSAGES


class Api(ABC, Generic[BodyT]):
    """One API. Shapes and conversion only.

    Attributes:
        facts: Its names, paths and fields.
        body: The model of a request's body.
        reply_body, error_body: Models of the replies, for the API's description.
        errors: Status and words of each error.
        json_only: It refuses a body that is not declared as JSON.
        any_model: The served model answers to every name, with a warning if the name is not its own.
        own_bytes: About how many bytes of documents the API adds to a body.
        waits: Reading a body takes other work, such as a search.
    """

    facts: ClassVar[ApiFacts]
    body: type[BodyT]
    reply_body: ClassVar[Any]
    error_body: ClassVar[type[BaseModel]]
    errors: ClassVar[ErrorTable[Any]]
    json_only: ClassVar[bool] = False
    any_model: ClassVar[bool] = False
    own_bytes: ClassVar[int] = 0
    waits: ClassVar[bool] = False

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        return self.facts.name

    def paths(self) -> tuple[str, ...]:
        """The paths of its POST requests."""
        return self.facts.paths

    def at(self, path: str) -> Api[BodyT]:
        """The API as it is answered at one of its paths."""
        return self

    @property
    def max_documents(self) -> int:
        """The most documents of a call."""
        return self.settings.max_call_documents

    @property
    def statuses(self) -> tuple[int, ...]:
        """The documented statuses beside 200. A path's description has its methods, so 405 is not among them."""
        never = (MethodNotAllowed, *((ModelNotFound,) if self.any_model else ()))
        return self.errors.statuses(without=never)

    @property
    def may_decline(self) -> bool:
        """Whether it leaves bodies on a path of several APIs to the others."""
        return type(self).claims is not Api.claims

    def status_routes(self) -> tuple[StatusRoute, ...]:
        """The routes that clients of this API use to ask about the server."""
        return ()

    def limits(self, **own: Any) -> Limits:
        """The limits of most APIs, and the API's own."""
        common = Limits(self.max_documents, max_prompt_tokens=self.settings.max_context)
        return replace(common, **own)

    def claims(self, given: Mapping[str, bool]) -> bool:
        """Whether a body on a path of several APIs belongs to this one. The last API of a path takes the rest.

        Args:
            given: the names of the body's fields, and whether each has another value than null.
        """
        return True

    def read(self, body: BodyT) -> Call:
        """The call of a body, with our own fields.

        Raises:
            InvalidRequest: a mistake that the body's model does not exclude.
        """
        own, asked = body.own(), body.passages_asked()
        call = replace(
            self.parse(body),
            explain=own.explain,
            deadline_ms=own.deadline_ms,
            min_score=own.min_score,
            calibration=own.calibration,
            cascade=own.cascade,
        )
        if asked is None:
            return call
        options = PassageOptions() if isinstance(asked, bool) else asked
        if options.highlight and call.show.at_most is not None:  # nobody pays for sentences that are not shown
            call = replace(call, top_n=max(1, call.show.at_most))
        return replace(call, passages=self.passages(options) if asked else None, shown_passages=options.top_n)

    def passages(self, options: PassageOptions) -> Passages:
        """How documents are split; the server's settings count where the options say nothing."""
        settings, most = self.settings, self.settings.max_passages
        return Passages(
            _first(options.max_tokens, settings.passage_tokens),
            _first(options.overlap_tokens, settings.passage_overlap),
            min(options.max_per_doc or most, most),
            options.highlight,
        )

    @abstractmethod
    def parse(self, body: BodyT) -> Call:
        """Raises InvalidRequest for mistakes that the body's model does not exclude."""

    def call(
        self,
        body: InstructBody,
        query: str | tuple[str, ...],
        documents: Sequence[str],
        top_n: int | None = None,
        limits: Limits | None = None,
        *,
        model: str | None = None,
        warnings: tuple[str, ...] = (),
        show: Show = Show(),
        priority: int = 0,
    ) -> Call:
        """The call of a body that has our field `instruct`. limits: None for the usual ones."""
        queries = (query,) if isinstance(query, str) else query
        instruct, unused = body.instruct_asked()
        request = (queries, tuple(documents), instruct, top_n, limits or self.limits(), priority)
        return Call(*request, model=model or None, warnings=unused + warnings, show=show)

    @abstractmethod
    def reply(self, answer: Answer) -> Reply:
        """The body of a 200."""

    def headers(self, answer: Answer) -> Mapping[str, str]:
        """Further headers of a 200."""
        return {}

    @abstractmethod
    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON | None]:
        """Status and body; None for an empty body."""


def _first(*values: int | None) -> int | None:
    """The first number that is given."""
    return next((value for value in values if value is not None), None)
