"""What every dialect is: a request shape, a reply shape, an error shape, and the paths that speak it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from rerankd.config import ServerSettings
from rerankd.errors import RerankdError
from rerankd.types import Ranking, RerankRequest

JSON = dict[str, Any]
Body = TypeVar("Body", bound="RequestBody")
Row = TypeVar("Row")


class RequestBody(BaseModel):
    """A parsed request body. Fields that a dialect does not know are kept, so that they can be named."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True)
class Call:
    """What a body asks, in the words of the domain. `model`: the name that was asked for, None for any."""

    request: RerankRequest
    model: str | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply is made from. `model`: the name to echo; `id`: of this request, a UUID."""

    id: str
    model: str
    ranking: Ranking
    warnings: tuple[str, ...]


class Dialect(ABC, Generic[Body]):
    """One surface. Shapes and conversion only.

    name: for logs. paths: where POST is answered. body: what is read; reply_body, error_body: what is sent, for
    the API's description; statuses: beside 200. json_only: refuse a body that is not declared as JSON.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    body: type[Body]
    reply_body: ClassVar[type[BaseModel]]
    error_body: ClassVar[type[BaseModel]]
    statuses: ClassVar[tuple[int, ...]] = (400, 401, 404, 408, 500, 503)
    json_only: ClassVar[bool] = False

    def __init__(self, settings: ServerSettings, *paths: str) -> None:
        self.settings = settings
        self.paths = paths

    @abstractmethod
    def parse(self, body: Body) -> Call:
        """Raises InvalidRequest for what the shape alone does not rule out."""

    @abstractmethod
    def reply(self, body: Body, answer: Answer) -> JSON:
        """The 200 body."""

    @abstractmethod
    def error(self, error: RerankdError, request_id: str) -> tuple[int, JSON]:
        """Status and body."""


class ErrorTable(Generic[Row]):
    """Our error → what a dialect says, by the nearest class in the tree."""

    def __init__(self, rows: Mapping[type[RerankdError], Row]) -> None:
        self._rows = rows

    def __getitem__(self, error: RerankdError) -> Row:
        return next(self._rows[kind] for kind in type(error).__mro__ if kind in self._rows)


def _text_of(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and "text" in value else value


Document = Annotated[
    str,
    BeforeValidator(_text_of),
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
