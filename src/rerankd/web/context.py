"""The parts of the server that the pages show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from rerankd.config import ServerSettings
from rerankd.mail import Mailer
from rerankd.oidc.provider import Provider
from rerankd.prices import PriceFile
from rerankd.server.metrics.metrics import ServerStatus
from rerankd.server.models import Models

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store


@dataclass(frozen=True, slots=True)
class WebContext:
    """Everything that the pages show.

    Attributes:
        accounts: None without accounts.
        mailer: sends mails to accounts; None: none are sent.
        provider: where people sign in, too; None: with their passwords only.
        status: the figures of the page for administrators.
    """

    settings: ServerSettings
    prices: PriceFile
    models: Models
    accounts: Store | None = None
    status: Callable[[], ServerStatus] | None = None
    mailer: Mailer | None = None
    provider: Provider | None = None

    @property
    def needs_key(self) -> bool:
        """Whether the API asks its callers for a key."""
        return self.accounts is not None or self.settings.api_key is not None

    def address(self, request: Request) -> str:
        """The address of this server for people, without a slash at its end: the setting's, else the request's."""
        root: str = request.scope.get("root_path", "")
        return self.settings.public_url or f"{request.url.scheme}://{request.url.netloc}{root}"

    def names(self) -> tuple[str, ...]:
        """The names that the models answer to; none while the default model loads."""
        return tuple(self.models.names()) if self.models.default.ready else ()

    def model_names(self) -> tuple[str, ...]:
        """These names and those of the price list: a key can be confined to any of them."""
        return tuple(dict.fromkeys((*self.names(), *(price.model for price in self.prices.current().prices))))
