"""The pages in a real browser behind nginx, under a path: the playground ranks, and every file is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from support.nginx import nginx
from support.playground import rank
from support.server import StartServer


@pytest.mark.parametrize(
    ("options", "target", "more"),
    [
        (("--root-path", "/rerank"), "/", ""),
        (("--root-path", "/rerank"), "", ""),
        ((), "/", "proxy_set_header X-Forwarded-Prefix /rerank;"),
    ],
    ids=["stripped", "not stripped", "X-Forwarded-Prefix"],
)
def test_the_playground_works_under_a_path(
    options: tuple[str, ...],
    target: str,
    more: str,
    browser: Browser,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    server = start_server("--model", "embedded", *options)
    missing: list[str] = []
    with nginx(tmp_path, server.url.removeprefix("http://"), "/rerank/", target, more) as url:
        page = browser.new_page()
        page.on("response", lambda response: missing.extend([response.url] * (response.status >= 400)))
        page.on("pageerror", lambda error: missing.append(str(error)))
        page.goto(f"{url}/rerank/")
        rank(page)
        expect(page.locator("li[data-index]").first).to_be_visible()
        for path in ("rates", "docs"):
            page.goto(f"{url}/rerank/{path}")
            page.wait_for_load_state("networkidle")
        page.close()
    assert missing == []
