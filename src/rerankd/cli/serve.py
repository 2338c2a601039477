"""`rerankd serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from socket import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from rerankd.cli.log import log_to_stderr
from rerankd.cli.options import add_settings, settings_from
from rerankd.cli.progress import LoadingBar
from rerankd.config import ServerSettings
from rerankd.server.app import create_app
from rerankd.server.protocol import BoundedHTTP
from rerankd.server.served import Engine, ServedModel
from rerankd.types import LoadProgress
from rerankd.version import __version__

if TYPE_CHECKING:
    from rerankd.accounts.store import Store

logger = logging.getLogger(__name__)

DRAIN_S = 120
"""After SIGTERM, requests that came before it have this long to be answered."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ServerSettings)


def run(options: argparse.Namespace) -> int:
    log_to_stderr()
    settings = settings_from(options, ServerSettings)
    settings.check_exposure()
    log_to_stderr(settings.log_level)
    served = ServedModel(lambda progress: _start(settings, progress), settings.model, settings.alias)
    store = _open_store(settings) if settings.accounts else None
    app = create_app(settings, served, store, on_failure=lambda: setattr(server, "should_exit", True))
    server = _Server(
        served,
        settings.drain_delay_s,
        uvicorn.Config(
            app,
            http=BoundedHTTP,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # ours knows more: server/access_log.py
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        ),
    )
    logger.info("rerankd %s starts: %s", __version__, _summary(settings))
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    if served.failure is not None:
        raise served.failure
    return 0 if server.started else 1


def _open_store(settings: ServerSettings) -> Store:
    from rerankd.accounts.store import open_store

    store = open_store(settings.require_database(), make_folder=settings.has_default_database)
    if not store.people.all():
        logger.warning("There are no accounts yet: rerankd accounts create --admin EMAIL")
    return store


def _summary(settings: ServerSettings) -> str:
    """The settings that decide who is served what, without a secret."""
    callers = "accounts" if settings.accounts else "one key" if settings.api_key else "no key"
    return f"model {settings.model}, dtype {settings.dtype}, {callers}, settings file {settings.config or 'none'}"


class _Server(uvicorn.Server):
    """Says where it listens, the real port included, and how it ends.

    Args:
        drain_delay_s: how long calls are still taken after a signal, while /health already says 503.
    """

    def __init__(self, served: ServedModel, drain_delay_s: float, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._served, self._drain_delay_s = served, drain_delay_s

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._served.stopping = True
        calls = len(self.server_state.tasks)
        later = f"; new ones are taken for {self._drain_delay_s:g} s more" if self._drain_delay_s else ""
        logger.info("Stopping: calls that run (%d now) have %d s to end%s", calls, DRAIN_S, later)
        await self._wait_for_balancers()
        await super().shutdown(sockets)
        logger.info("Stopped")

    async def _wait_for_balancers(self) -> None:
        """They go on sending until they have seen that /health fails."""
        until = time.monotonic() + self._drain_delay_s
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.1)

    def _log_started_message(self, listeners: Any) -> None:
        for listener in listeners:
            host, port = listener.getsockname()[:2]
            where = "http://%s:%d (playground at /, API description at /docs)"
            logger.info(f"Listening on {where}", host, port)


def _start(settings: ServerSettings, progress: LoadProgress) -> Engine:
    # Imported here, on the loading thread: the server listens before torch is there.
    from rerankd.engine.open import Choice
    from rerankd.startup import start_engine

    choice = Choice(settings.model, settings.device, settings.dtype, settings.deterministic)
    with LoadingBar() as bar:

        def both(stage: str, share: float) -> None:
            progress(stage, share)
            bar(stage, share)

        engine = start_engine(
            choice,
            max_waiting=settings.max_queue,
            score_cache_mb=settings.score_cache_mb,
            skip_self_test=settings.skip_self_test,
            progress=both,
        )
    if engine.info.notice:
        logger.warning(engine.info.notice)
    logger.info("Ready: %s answers", engine.info.name)
    return engine
