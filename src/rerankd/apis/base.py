"""What every dialect is: a request shape, a reply shape, an error shape, and the paths that speak it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler, WithJsonSchema
from pydantic_core import core_schema

from rerankd.apis.errors import BodyTimeout, MethodNotAllowed, UnsupportedEncoding
from rerankd.apis.facts import ApiFacts
from rerankd.errors import (
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    OutOfCredit,
    Problem,
    RateLimited,
    RerankdError,
    Unauthorized,
    Unavailable,
)
from rerankd.ranking import explanation
from rerankd.types import ModelInfo, Ranking, RerankRequest, Score, TokenCounts

JSON = dict[str, Any]
Reply = JSON | list[JSON] | list[list[JSON]]
BodyT = TypeVar("BodyT", bound="RequestBody")
Word = TypeVar("Word")
Item = TypeVar("Item")


MAX_ITEMS = 100_000
"""Of a list in a body. A document takes a kilobyte while it is ranked, however short it is."""


@dataclass(frozen=True)
class Bounded:
    """A list in a body: of its items only the first mistake is told, since all those of a few megabytes would take
    gigabytes. (Pydantic's own FailFast cannot be hashed, so it cannot be in a union.)"""

    max_items: int = MAX_ITEMS

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return {**handler(source), "fail_fast": True, "max_length": self.max_items}


ListOf = Annotated[list[Item], Bounded()]


class Explain(BaseModel):
    """What `explain` may ask beside `true`."""

    model_config = ConfigDict(extra="forbid")
    prompt: int | None = Field(None, ge=0, description="Index of the document whose exact prompt is returned too.")


class RequestBody(BaseModel):
    """A parsed request body. Fields that a dialect does not know are kept, so that they can be named."""

    model_config = ConfigDict(extra="allow")

    explain: Explain | bool | None = Field(
        None,
        description="rerankd's own: true adds to each result its logit, tokens, cuts, and whether it was computed; "
        '`{"prompt": 0}` also the exact prompt of document 0.',
    )

    def unknown_fields(self) -> list[Problem]:
        """The first fields that the dialect does not have, as mistakes: a misspelt one explains a missing one."""
        return [Problem(name[:100], "Unknown field", "extra_forbidden") for name in list(self.model_extra or {})[:8]]


@dataclass(frozen=True, slots=True)
class Call:
    """What a body asks, in the words of the domain.

    model: the name that was asked for, None for any. id: what the caller calls this request. explain: see RequestBody.
    """

    request: RerankRequest
    model: str | None
    warnings: tuple[str, ...] = ()
    id: str | None = None
    explain: Explain | bool | None = None


DOCUMENTS_A_SEARCH_UNIT = 100
"""Cohere's unit of billing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply is made from.

    Attributes:
        id: of this request.
        model: the name to echo.
        usage: the tokens of all its prompts.
        info: the model that scored.
        explain: whether each result is explained.
        prompts: those that were asked for, by index.
        seconds: since the request came.
        encode_seconds: of them, to make the prompts.
        engine_seconds: of them, in the engine, waiting included.
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

    @property
    def search_units(self) -> int:
        """What Cohere bills for a query with so many documents."""
        return -(-len(self.ranking.scores) // DOCUMENTS_A_SEARCH_UNIT)

    def result(self, of: Score, /, **fields: Any) -> JSON:
        """One entry of a result list: the dialect's fields, and the explanation if it was asked for."""
        if not self.explain:
            return fields
        prompt = {"prompt": self.prompts[of.index]} if of.index in self.prompts else {}
        return {**fields, "explain": {**explanation(of, self.info), **prompt}}


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
    Unavailable: 503,
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
    lift_instruct: bool = True
    trust_priority: bool = False
    infinity_prefix: str = "/infinity"


class Api(ABC, Generic[BodyT]):
    """One surface. Shapes and conversion only.

    facts: its names and paths. body: what is read; reply_body,
    error_body: what is sent, for the API's description (a model, or a list of one). errors: the status and the words
    of each error. json_only: refuse a body that is not declared as JSON. any_model: every name is answered by the
    served model, as by a server that has one only; a name that is not its own brings a warning.
    """

    facts: ClassVar[ApiFacts]
    body: type[BodyT]
    reply_body: ClassVar[Any]
    error_body: ClassVar[type[BaseModel]]
    errors: ClassVar[ErrorTable[Any]]
    json_only: ClassVar[bool] = False
    any_model: ClassVar[bool] = False

    def __init__(self, settings: ApiSettings) -> None:
        self.settings = settings

    @property
    def name(self) -> str:
        return self.facts.name

    def paths(self) -> tuple[str, ...]:
        """Where it is answered with POST."""
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

    def claims(self, value: Mapping[str, Any]) -> bool:
        """Whether a body on a path of several dialects is this one's. The last dialect of a path takes the rest."""
        return True

    @abstractmethod
    def parse(self, body: BodyT) -> Call:
        """Raises InvalidRequest for what the shape alone does not rule out."""

    @abstractmethod
    def reply(self, body: BodyT, answer: Answer) -> Reply:
        """The 200 body."""

    def headers(self, answer: Answer) -> Mapping[str, str]:
        """Further headers of a 200."""
        return {}

    @abstractmethod
    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON | None]:
        """Status and body, None for an empty one."""


def text_of(value: Any) -> Any:
    """What stands for a document: the text of an object, anything else as it is."""
    return value["text"] if isinstance(value, dict) and "text" in value else value


Document = Annotated[
    str,
    BeforeValidator(text_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
            ]
        }
    ),
]
"""A document: its text, or an object with the key `text`."""
