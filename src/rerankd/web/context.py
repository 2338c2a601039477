"""What the pages are given by the server. Knows how none of it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.types import ModelInfo

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store


class Engine(Protocol):
    """What is shown of an engine."""

    @property
    def info(self) -> ModelInfo: ...


class Served(Protocol):
    """The model behind the server, as `server.served.ServedModel` has it."""

    @property
    def ready(self) -> bool: ...

    @property
    def progress(self) -> tuple[str, float]: ...

    @property
    def engine(self) -> Engine: ...


class ServerStatus(Protocol):
    """How the server does at one moment.

    running, waiting: requests. requests_per_minute, tokens_per_second: over the last minute; tokens are those that were
    computed. prefix_hit_share, score_hit_share: of the caches' look-ups since the start, in [0, 1], None before the
    first. uptime_s: seconds.
    """

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def requests_per_minute(self) -> float: ...

    @property
    def tokens_per_second(self) -> float: ...

    @property
    def prefix_hit_share(self) -> float | None: ...

    @property
    def score_hit_share(self) -> float | None: ...

    @property
    def uptime_s(self) -> float: ...


@dataclass(frozen=True, slots=True)
class WebContext:
    """Everything that the pages show.

    served: the default model. names_served: of all models. accounts: None where accounts are off. status: asked by the
    page for administrators only.
    """

    settings: ServerSettings
    prices: PriceFile
    served: Served
    names_served: Callable[[], Iterable[str]]
    accounts: Store | None = None
    status: Callable[[], ServerStatus] | None = None

    @property
    def needs_key(self) -> bool:
        """Whether the API asks its callers for a key."""
        return self.accounts is not None or self.settings.api_key is not None

    def names(self) -> tuple[str, ...]:
        """The names that the models answer to; none while the default model loads."""
        return tuple(self.names_served()) if self.served.ready else ()

    def model_names(self) -> tuple[str, ...]:
        """These and those of the price list: what a key may be confined to."""
        return tuple(dict.fromkeys((*self.names(), *(price.model for price in self.prices.current().prices))))
