"""A browser, pages that are watched while they are open, and servers with accounts to look at."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from rerankd.config import ServerSettings
from support.evidence import PAGES, WatchedPage
from support.site import PRICES, Site, new_store, site_of
from support.waiting import PATIENCE_S, wait_until

AT_HOME = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
"""Chromium asks nobody anything by itself."""

PATIENCE_MS = 60_000
"""For what a page must come to: also on a machine that is busy."""


@pytest.fixture(scope="package")  # not longer: while it is open, an event loop runs on this thread
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        assert not os.environ.get("CI"), "chromium is not installed"
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(AT_HOME), timeout=PATIENCE_MS)
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
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        PAGES.append(WatchedPage(page))
        page.goto(url)
        return page

    yield open_page
    PAGES.clear()
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(tuple(origins))] == []


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """The pages on a database of their own: `make_site(sign_up="open")`."""
    made: list[Site] = []

    def make(**changes: Any) -> Site:
        config = tmp_path / "rerankd.toml"
        config.write_text(PRICES)
        made.append(site_of(new_store(tmp_path), ServerSettings(accounts=True, config=config, **changes)))
        return made[-1]

    yield make
    for site in made:
        site.store.database.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site(sign_up="invite")


@pytest.fixture
def serve() -> Iterator[Callable[[Site], str]]:
    """Serves the pages for a browser: `serve(site)` is their address."""
    with ExitStack() as stack:
        yield lambda site: stack.enter_context(_served(site))


@pytest.fixture
def serve_site(site: Site, serve: Callable[[Site], str]) -> tuple[Site, str]:
    """The same for a browser: (the site, its address)."""
    return site, serve(site)


@contextmanager
def _served(site: Site) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(site.app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
