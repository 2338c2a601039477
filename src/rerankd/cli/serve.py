"""`rerankd serve`."""

from __future__ import annotations

import argparse
import logging
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

if TYPE_CHECKING:
    from rerankd.accounts.store import Store

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
        uvicorn.Config(
            app,
            http=BoundedHTTP,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,  # ours knows more: server/access_log.py
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
    )
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    if served.failure is not None:
        raise served.failure
    return 0 if server.started else 1


def _open_store(settings: ServerSettings) -> Store:
    from rerankd.accounts.store import open_store

    store = open_store(settings.require_database())
    if not store.people.all():
        logging.getLogger("rerankd").warning("There are no accounts yet: rerankd accounts create --admin EMAIL")
    return store


class _Server(uvicorn.Server):
    """Says where it listens in one line, the real port included."""

    def _log_started_message(self, listeners: Any) -> None:
        for listener in listeners:
            host, port = listener.getsockname()[:2]
            where = "http://%s:%d (playground at /, API description at /docs)"
            logging.getLogger("rerankd").info(f"Listening on {where}", host, port)


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
        logging.getLogger("rerankd").warning(engine.info.notice)
    logging.getLogger("rerankd").info("Ready: %s answers", engine.info.name)
    return engine
