"""A server in the process of the test, around a model that the test holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import uvicorn

from rerankd.accounts.store import Store
from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.engine.scorer import EngineScorer
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import LoadProgress
from support.waiting import wait_until as wait_until


@contextmanager
def serving(
    start: Callable[[LoadProgress], EngineScorer], wait: bool = True, **settings: Any
) -> Iterator[httpx2.Client]:
    """A server in this process, on a port of its own; `start` makes its scorer."""
    with serving_model(Models(ServedModel(start)), wait, **settings) as client:
        yield client


@contextmanager
def serving_model(
    models: Models, wait: bool = True, store: Store | None = None, **settings: Any
) -> Iterator[httpx2.Client]:
    """Likewise, for a model that is told how to load. store: the accounts, if there are any."""
    app = create_app(ServerSettings(**settings), models, store)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        with httpx2.Client(base_url=f"http://{host}:{port}", timeout=60) as client:
            if wait:
                wait_until(lambda: client.get("/health").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
    assert not thread.is_alive()
