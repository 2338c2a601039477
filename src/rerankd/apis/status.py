"""Status routes: paths and answers about the server, for an API's clients. Knows no HTTP library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from rerankd.types import ModelInfo

JSON = dict[str, Any]


class ServerView(Protocol):
    """The server, as the status routes of an API see it."""

    @property
    def info(self) -> ModelInfo:
        """The default model. Raises Loading."""
        ...

    @property
    def names(self) -> Mapping[str, ModelInfo]:
        """Every name with the model that answers to it. Raises Loading."""
        ...

    @property
    def queued(self) -> Mapping[str, int]:
        """By model, the number of requests in its queue. Raises Loading."""
        ...

    @property
    def max_queue(self) -> int: ...

    @property
    def max_batch_tokens(self) -> int:
        """Raises Loading."""
        ...

    @property
    def needs_key(self) -> bool: ...

    @property
    def started(self) -> int:
        """Unix time."""
        ...

    def find(self, name: str) -> ModelInfo:
        """The model that answers to a name. Raises Loading or ModelNotFound."""
        ...


@dataclass(frozen=True, slots=True)
class StatusRoute:
    """A GET request.

    Attributes:
        summary: For the API's description.
        answer: The body of a 200, None for an empty one, from the server and the path's parameter `name`.
        statuses: The others that it has.
        is_empty: Whether a 200 has no body.
        needs_key: Whether it refuses callers without a key, if the server has keys.
    """

    path: str
    summary: str
    answer: Callable[[ServerView, str], JSON | None]
    statuses: tuple[int, ...] = (503,)
    needs_key: bool = False
    is_empty: bool = False


MEANINGS = {
    200: "The ranking.",
    400: "A field is missing, empty, of the wrong type or over a limit; the message says which.",
    401: "No key, or a wrong one.",
    402: "The account cannot pay for the call.",
    403: "The key may not use this model, or the account cannot pay for the call; the message says which.",
    404: "A model that is not served here.",
    408: "The body stopped in the middle.",
    413: "The body, or a text, is larger than the server reads.",
    415: "The body is packed in a way that is not read here: send it plain, or with gzip.",
    422: "A field is missing, empty, of the wrong type or over a limit; the message says which.",
    424: "The model failed on this request.",
    429: "More than this caller may ask, or too many requests that wait: try again after `Retry-After` seconds. "
    "Without that header: the account cannot pay for the call.",
    500: "The model failed on this request.",
    502: "The servers behind this one did not answer the call.",
    503: "Loading, full or shutting down: try again after `Retry-After` seconds.",
    504: "The servers behind this one did not answer in time.",
    508: "Servers pass the call to each other in a circle.",
}


def meaning(status: int) -> str:
    """A status, for the API's description."""
    return MEANINGS.get(status) or f"{HTTPStatus(status).phrase}."
