"""A browser, pages that are watched while they are open, and servers with accounts to look at."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from rerankd.accounts.accounts import Account
from rerankd.accounts.store import Store, open_store
from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.types import ModelInfo
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes

AT_HOME = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
"""Chromium asks nobody anything by itself."""

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


@pytest.fixture(scope="package")  # not longer: while it is open, an event loop runs on this thread
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        assert not os.environ.get("CI"), "chromium is not installed"
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(AT_HOME))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address in a profile of its own: `open_page(url, color_scheme="dark")`.

    At the end of the test, no page has asked another server, logged an error, or broken its own policy.
    """
    contexts: list[BrowserContext] = []
    origins: set[str] = set()
    asked: list[str] = []
    errors: list[str] = []

    def log(message: Any) -> None:
        # A refusal of the API is logged by the browser itself.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    def open_page(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
        contexts.append(context)
        origins.add(str(httpx2.URL(url).copy_with(path="/", query=None, fragment=None)))
        context.on("request", lambda request: asked.append(request.url))
        context.on("console", log)
        context.on("weberror", lambda error: errors.append(str(error.error)))
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(tuple(origins))] == []


INFO = ModelInfo(
    name="Qwen/Qwen3-Reranker-0.6B",
    kind="qwen3",
    prompt_id="qwen3-reranker-v1",
    max_tokens=32_768,
    device="cpu",
    dtype="bfloat16",
    num_parameters=595_776_512,
    folder="/models/qwen3",
)


@dataclass(frozen=True)
class Model:
    """One served model as the pages see it, and the server's `Models` at once; without weights."""

    info: ModelInfo = INFO
    ready: bool = True
    progress: tuple[str, float] = ("reading the weights", 0.4)

    @property
    def default(self) -> Model:
        return self

    @property
    def scorer(self) -> Model:
        return self

    def names(self) -> dict[str, Model]:
        return dict.fromkeys((self.info.name, "qwen3-rerank", "gte-rerank"), self)


@dataclass(frozen=True)
class Status:
    """A server's figures at one moment."""

    running: int = 2
    waiting: int = 1
    requests_per_minute: float = 312.0
    tokens_per_second: float = 48_211.0
    prefix_hit_share: float | None = 0.97
    score_hit_share: float | None = None
    uptime_s: float = 93_784.0


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


@pytest.fixture
def make_site(tmp_path: Path) -> Callable[..., Site]:
    """The pages on a database of their own: `make_site(sign_up="open")`."""

    def make(**changes: Any) -> Site:
        config = tmp_path / "rerankd.toml"
        config.write_text(PRICES)
        settings = ServerSettings(accounts=True, config=config, **changes)
        store = open_store(f"sqlite:///{tmp_path / 'accounts.db'}")
        prices = PriceFile(config)
        app = FastAPI(openapi_url=None)
        app.include_router(web_routes(WebContext(settings, prices, Model(), store, Status)))
        admin = store.accounts.create("admin@example.com", "Ada", PASSWORD, "admin")
        user = store.accounts.create("user@example.com", "", PASSWORD)
        return Site(app, store, prices, admin, user, settings)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(sign_up="invite")


@pytest.fixture
def serve_site(site: Site) -> Iterator[tuple[Site, str]]:
    """The same for a browser: (the site, its address)."""
    server = uvicorn.Server(uvicorn.Config(site.app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield site, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
