"""What the clients of an API ask about the server: paths and answers. Knows no HTTP library; errors are the API's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rerankd.types import ModelInfo

JSON = dict[str, Any]


class ServerView(Protocol):
    """What an API may say about the server."""

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
