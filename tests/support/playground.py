"""The playground in a browser: it ranks by itself when it opens, so a test waits for the ranking that it asked for."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def settled(page: Page) -> Page:
    """Once the script runs and no call is open."""
    expect(page.locator("#playground[data-started][aria-busy=false]")).to_be_attached()
    return page


def rank(page: Page) -> None:
    """Presses Rank, and waits for the answer to it: a list or an alert from before may stand there until then."""
    settled(page).click("#rank")
    settled(page)
