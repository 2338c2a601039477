"""The pages of a server with accounts, without a server in a process of its own, and without weights."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rerankd.accounts.accounts import Account
from rerankd.accounts.store import Store, open_store
from rerankd.app import provider_of
from rerankd.config import ServerSettings
from rerankd.engine.scorer import EngineScorer
from rerankd.prices import PriceFile
from rerankd.server.metrics.metrics import ServerStatus
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import LoadProgress, ModelInfo
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes
from support.fakes import NumberedModel, scorer_of

PASSWORD = "correct horse battery"

PRICES = """
[rates."qwen3-rerank"]
input_price = 0.1
free_tokens = 1_000_000
free_days = 90
languages = "100+"
description = "For semantic search and RAG."
requests_per_minute = 600

[rates."another-model"]
input_price = 2
"""

INFO = ModelInfo(
    name="Qwen/Qwen3-Reranker-0.6B",
    kind="qwen3",
    prompt_id="qwen3-reranker-card",
    max_tokens=32_768,
    device="cpu",
    dtype="bfloat16",
    num_parameters=595_776_512,
    folder="/models/qwen3",
)

STATUS = ServerStatus(
    running=2,
    waiting=1,
    requests_per_minute=312.0,
    tokens_per_second=48_211.0,
    prefix_hit_share=0.97,
    score_hit_share=None,
    uptime_s=93_784.0,
)


def loaded_models(info: ModelInfo = INFO) -> Models:
    """One model that has loaded. Its engine is closed, because pages only show the model."""
    loaded = threading.Event()
    models = Models(ServedModel(lambda _: scorer_of(NumberedModel(info=info))))
    models.load(loaded.set, lambda _: loaded.set())
    assert loaded.wait(60)
    while not models.ready:
        assert models.failure is None, models.failure
    models.close()
    return models


def loading_models() -> Models:
    """One model that stops at 40 % of its weights."""
    stopped = threading.Event()

    def start(progress: LoadProgress) -> EngineScorer:
        progress("reading the weights", 0.4)
        raise InterruptedError

    models = Models(ServedModel(start))
    models.load(stopped.set)
    assert stopped.wait(60)
    return models


@dataclass
class Site:
    """The pages of a server with accounts, and what is behind them."""

    app: FastAPI
    store: Store
    prices: PriceFile
    admin: Account
    user: Account
    settings: ServerSettings

    def visitor(self, account: Account | None = None, https: bool = False, host: str = "192.0.2.1") -> TestClient:
        """Somebody's browser, without scripts: signed in, or not."""
        base = "https://testserver" if https else "http://testserver"
        client = TestClient(self.app, base_url=base, follow_redirects=False, client=(host, 50_000))
        if account:
            client.cookies.set("rerankd-session", self.store.sessions.open(account.id))
        return client

    def csrf(self, client: TestClient) -> str:
        """The token that this visitor's forms carry."""
        session = self.store.sessions.find(client.cookies["rerankd-session"])
        assert session
        return session.csrf


def site_of(store: Store, settings: ServerSettings, models: Models | None = None) -> Site:
    """The pages over a database, with an administrator and a user."""
    prices, app = PriceFile(settings.config), FastAPI(openapi_url=None)
    context = WebContext(
        settings, prices, models or loaded_models(), store, lambda: STATUS, provider=provider_of(settings)
    )
    app.include_router(web_routes(context))
    admin = store.accounts.create("admin@example.com", "Ada", PASSWORD, "admin")
    user = store.accounts.create("user@example.com", "", PASSWORD)
    return Site(app, store, prices, admin, user, settings)


def new_store(folder: Path) -> Store:
    """An empty database in a file."""
    return open_store(f"sqlite:///{folder / 'accounts.db'}")
