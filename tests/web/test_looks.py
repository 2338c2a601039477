"""Every page in light and dark, at four widths."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.decision import CallCost
from rerankd.accounts.keys import Caller
from rerankd.accounts.ledger import Ledger
from rerankd.types import CallLimits
from support.looks import both_themes, check
from support.playground import rank, settled
from support.server import Server
from support.site import PASSWORD, Site

OWN = ("usage", "statement", "calls", "account", "members", "join", "rates", "keys")
Open = Callable[..., Page]


def lived_in(site: Site) -> Site:
    """With some weeks of traffic."""
    chance = random.Random(0)
    site.store.accounts.set_limits(site.user.id, CallLimits(100, 200_000, 2))
    site.store.accounts.disable(site.store.accounts.create("gone@example.com").id)
    site.store.members.add(site.admin.id, "grace@example.com", "Grace", PASSWORD, "member", site.admin.id)
    site.store.invites.create_for_member(site.admin.id, site.admin.id, "viewer", "alan@example.com")
    for account in (site.admin, site.user):
        site.store.ledger.add_credits(account.id, 25_000_000, "start", site.admin.id)
        secrets = [site.store.keys.create(account.id, name)[1] for name in ("search page", "nightly job")]
        site.store.keys.set_budget(site.store.keys.of_account(account.id)[0].id, 13_000_000)
        old, _ = site.store.keys.create(account.id, "old laptop")
        site.store.keys.revoke(old.id)
        for days_ago in range(28, -1, -1):
            ledger = Ledger(site.store.database, clock=lambda ago=days_ago: time.time() - ago * 86_400)  # type: ignore[misc]
            for secret in secrets:
                caller = site.store.keys.find(secret)
                assert caller
                price = chance.choice(site.prices.current().prices)
                tokens = chance.randint(10_000, 200_000)
                ledger.settle(ledger.reserve(caller, price, CallCost(tokens, str(days_ago), price.model.encode())))
                called(site, caller, days_ago, price.model, tokens)
    return site


def called(site: Site, caller: Caller, days_ago: int, model: str, tokens: int) -> None:
    """An answered call in the list of calls; every seventh day a refused one before it."""
    now = datetime.now(UTC) - timedelta(days=days_ago)
    ended = partial(CallRecord, account_id=caller.account_id, key_id=caller.key_id, dialect="vllm-rerank")
    work: dict[str, Any] = {"model": model, "documents": tokens // 500, "tokens": tokens, "cost": tokens // 10}
    answered = ended(now, request_id=f"req-{tokens:06}", status=200, milliseconds=tokens // 100, **work)
    why: dict[str, Any] = {"error": "RateLimited", "reason": "The limit is 100 requests per minute. Try again in 4 s."}
    refused = ended(now - timedelta(seconds=7), request_id=f"req-{tokens + 1:06}", status=429, milliseconds=3, **why)
    site.store.calls.add([refused, answered] if days_ago % 7 == 3 else [answered])


def enter(page: Page) -> None:
    page.fill("#email", "admin@example.com")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")


@both_themes
def test_the_pages_of_a_server_with_accounts(serve_site: tuple[Site, str], open_page: Open, theme: str) -> None:
    site, url = serve_site
    lived_in(site)
    page = open_page(f"{url}/sign-up", color_scheme=theme)
    check(page, "sign-up")
    page.goto(f"{url}/sign-in?next=/admin")
    check(page, "sign-in")
    page.fill("#email", "admin@example.com")
    page.fill("#password", "wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "sign-in-refused")
    enter(page)
    page.wait_for_url(f"{url}/admin")
    for name in ("admin", "admin/usage", "admin/calls", "admin/server", "admin/log", *OWN):
        page.goto(f"{url}/{name}")
        check(page, name.replace("/", "-"))
    page.fill("#name", "a new key")
    page.click("text=Models, limits and budget of this key")
    page.click("text=Create the key")
    expect(page.locator("#secret")).to_be_visible()
    check(page, "key-made")
    page.goto(f"{url}/admin/accounts/{site.user.id}")
    page.click("text=Usage by day as a table")
    check(page, "admin-account")
    page.goto(f"{url}/admin/accounts/99")
    check(page, "problem")


@both_themes
@pytest.mark.parametrize("widths", [(1280, 1920), (360, 768)])
def test_the_playground(embedded_server: Server, open_page: Open, theme: str, widths: tuple[int, int]) -> None:
    size = {"width": widths[0], "height": 800}
    page = open_page(f"{embedded_server.url}/", color_scheme=theme, viewport=size)
    settled(page)
    check(page, "playground-empty", widths)
    page.fill("#key", "wrong")
    rank(page)
    expect(page.get_by_role("alert")).to_be_visible()
    check(page, "playground-refused", widths)
    page.fill("#key", embedded_server.key)
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(8)
    check(page, "playground", widths)
    page.check("#compare")
    page.click("#side-b >> text=Similarity")
    page.click("#more summary")
    page.fill("#prompt-of", "0")
    rank(page)
    expect(page.locator(".merged li")).to_have_count(8)
    check(page, "playground-compare", widths)
    page.click("#copy-as")
    expect(page.locator("#snippets")).to_be_visible()
    check(page, "playground-code", widths)
    page.goto(f"{embedded_server.url}/docs")
    expect(page.locator(".opblock").first).to_be_visible(timeout=60_000)
    check(page, "docs", widths)


def test_sign_in_and_make_a_key_by_keyboard(serve_site: tuple[Site, str], open_page: Open) -> None:
    site, url = serve_site
    page = open_page(f"{url}/keys")
    expect(page.locator("#email")).to_be_focused()
    page.keyboard.type("user@example.com")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys")
    while page.evaluate("document.activeElement.id") != "name":
        page.keyboard.press("Tab")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#secret")).to_be_visible()
    secret = page.locator("#secret").text_content()
    while page.evaluate("document.activeElement.id") != "try-secret":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#key")).to_have_value(secret or "")
    assert secret and site.store.keys.find(secret)
    while page.evaluate("document.activeElement.textContent") != "Sign out":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sign-in")
    assert page.evaluate("sessionStorage.getItem('rerankd-key')") is None


def test_an_invitation_is_taken_from_its_link(serve_site: tuple[Site, str], open_page: Open) -> None:
    site, url = serve_site
    token = site.store.invites.create(site.admin.id)
    asked: list[str] = []
    page = open_page(f"{url}/rates")
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/sign-up#{token}")
    expect(page.locator("#invite")).to_have_value(token)
    assert not any(token in one.partition("#")[0] for one in asked) and token not in page.evaluate("location.href")
    page.fill("#email", "new@example.com")
    page.fill("#new", PASSWORD)
    page.fill("#again", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/keys")


def test_the_figures_follow_the_server(serve_site: tuple[Site, str], open_page: Open) -> None:
    _, url = serve_site
    page = open_page(f"{url}/sign-in?next=/admin/server")
    enter(page)
    page.wait_for_url(f"{url}/admin/server")
    tile = page.locator("[data-tile='Running']")
    expect(tile).to_have_text("2")
    tile.evaluate("tile => { tile.textContent = 'old' }")
    expect(tile).to_have_text("2")
