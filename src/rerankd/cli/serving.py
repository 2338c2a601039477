"""The process of `rerankd serve`: model, application, uvicorn, log and shutdown. Knows no command line."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import time
from functools import partial
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from rerankd.app import create_app
from rerankd.cli.served import make_models
from rerankd.config import ServerSettings
from rerankd.errors import SettingsError
from rerankd.server.connections import Connections, most_connections
from rerankd.server.forwarded import Forwarded
from rerankd.server.held import HeldBytes
from rerankd.server.interpreter import tune_for_serving
from rerankd.server.listening import address_of, bind, remove_files
from rerankd.server.models import Models
from rerankd.server.protocol import BoundedHTTP
from rerankd.tracing import open_traces
from rerankd.version import __version__

if TYPE_CHECKING:
    from rerankd.accounts.store import Store

logger = logging.getLogger(__name__)


def serve(settings: ServerSettings) -> int:
    """Serves until a signal or a failure ends it; returns the exit status."""
    settings.check_exposure()
    return serve_models(settings, make_models(settings))


def serve_models(settings: ServerSettings, models: Models) -> int:
    """The same, for models of any make."""
    store = _open_store(settings) if settings.accounts else None
    held = HeldBytes(settings.max_held_mb * 1_000_000)

    def stop() -> None:
        server.should_exit = True

    traces = open_traces(os.environ)
    app = create_app(settings, models, store, stop, held, traces)
    server = _Server(models, settings, _uvicorn_config(app, settings, held))
    tune_for_serving()
    logger.info("rerankd %s starts: %s", __version__, _summary(settings))
    try:
        server.run(bind(settings.host, settings.port, settings.uds))
    except KeyboardInterrupt:
        pass
    finally:
        traces.close()
    if models.failure is not None:
        raise models.failure
    return 0 if server.started else 1


def _uvicorn_config(app: Any, settings: ServerSettings, held: HeldBytes) -> uvicorn.Config:
    password = settings.ssl_keyfile_password
    config = uvicorn.Config(
        Forwarded(app, is_local_only=settings.uds is not None),
        # uvicorn calls it like the class
        http=partial(BoundedHTTP, connections=Connections(most_connections()), held=held),  # type: ignore[arg-type]
        ws="none",
        proxy_headers=False,  # Forwarded extends uvicorn's middleware by a header
        log_config=None,
        access_log=False,  # server/access_log.py logs more
        server_header=False,
        timeout_keep_alive=settings.timeout_keep_alive,
        timeout_graceful_shutdown=settings.drain_s,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
        ssl_keyfile_password=password.get_secret_value() if password else None,
        ssl_ca_certs=settings.ssl_ca_certs,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.ssl_ca_certs else ssl.CERT_NONE,
    )
    try:
        config.load()
    except OSError as error:  # also ssl.SSLError
        raise SettingsError(f"The certificate cannot be used ({error}): check --ssl-certfile and its key.") from None
    return config


def _open_store(settings: ServerSettings) -> Store:
    from rerankd.accounts.store import open_store

    store = open_store(settings.require_database(), make_folder=settings.has_default_database)
    if not store.accounts.all():
        logger.warning("There are no accounts yet: rerankd accounts create --admin EMAIL")
    return store


def _summary(settings: ServerSettings) -> str:
    """The main settings, without a secret."""
    callers = "accounts" if settings.accounts else "one key" if settings.api_key else "no key"
    names = ", ".join(settings.model)
    computes = f"{len(settings.upstream)} upstreams" if settings.upstream else f"model {names}, dtype {settings.dtype}"
    return f"{computes}, {callers}, settings file {settings.config or 'none'}"


class _Server(uvicorn.Server):
    """uvicorn's server, which logs the address with the real port, and stops in two steps.

    After a signal, calls still enter for `drain_delay_s` while /health answers 503; then the port is closed, and
    running calls have `drain_s` to finish.
    """

    def __init__(self, models: Models, settings: ServerSettings, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._models, self._drain_delay_s, self._drain_s = models, settings.drain_delay_s, settings.drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """After SIGTERM the process ends with status 0; uvicorn raises every other signal again when it has stopped."""
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._models.stopping = True
        calls = len(self.server_state.tasks)
        later = f"; new ones are accepted for {self._drain_delay_s:g} s more" if self._drain_delay_s else ""
        logger.info("Stopping: running calls (%d now) have %d s to finish%s", calls, self._drain_s, later)
        await self._wait_for_balancers()
        remove_files(sockets or [])
        await super().shutdown(sockets)
        logger.info("Stopped")

    async def _wait_for_balancers(self) -> None:
        """Load balancers send calls until they notice that /health fails."""
        until = time.monotonic() + self._drain_delay_s
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.1)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        scheme = "https" if self.config.ssl else "http"
        for bound in sockets or [] if self.started else []:
            where = "Listening on %s (playground at /, API description at /docs)"
            logger.info(where, address_of(bound, scheme))
