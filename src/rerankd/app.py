"""The application: the server with its web pages. Composes them, and knows nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from rerankd.config import ServerSettings
from rerankd.mail import Mailer
from rerankd.oidc.provider import Provider
from rerankd.prices import PriceFile
from rerankd.server.app import create_server
from rerankd.server.credit_mails import CreditMails
from rerankd.server.held import HeldBytes
from rerankd.server.models import Models
from rerankd.tracing import Traces
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store


def create_app(
    settings: ServerSettings,
    models: Models,
    store: Store | None = None,
    on_failure: Callable[[], None] = lambda: None,
    held: HeldBytes | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """The application. It loads the models when it starts.

    Args:
        store: the accounts; None without accounts.
        on_failure: called if a model cannot be loaded; `models.failure` says why.
        held: counts the bytes held for callers, where the connections count into it as well.
        traces: of the calls; None for none.

    Raises:
        SettingsError: the price list is invalid, or the package `redis` or `joserfc` is missing.
    """
    prices = PriceFile(settings.config, len(models.all))
    mailer = mailer_of(settings)
    mails: CreditMails | None = None
    if mailer is not None and store is not None:
        limit = None if settings.warn_credit is None else round(settings.warn_credit * 1_000_000)
        mails = CreditMails(store, mailer, prices, limit, settings.public_url or "")
    server = create_server(settings, models, prices, store, on_failure, held, traces or Traces(), mails)
    status, provider = server.metrics.status, provider_of(settings)
    server.app.include_router(web_routes(WebContext(settings, prices, models, store, status, mailer, provider)))
    return server.app


def mailer_of(settings: ServerSettings) -> Mailer | None:
    """Sends the mails of accounts; None without a server for them. Raises SettingsError."""
    return Mailer(settings.smtp, settings.mail_from or "") if settings.smtp else None


def provider_of(settings: ServerSettings) -> Provider | None:
    """Where people of accounts sign in; None without a provider. Raises SettingsError."""
    if settings.oidc_issuer is None or settings.oidc_client_secret is None:
        return None
    secret = settings.oidc_client_secret.get_secret_value()
    return Provider(settings.oidc_issuer, settings.oidc_client_id or "", secret)
