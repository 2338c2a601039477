"""What every page must be, in a browser: accessible, and no wider than its window; and its picture for the docs.

A page is looked at once, at four widths. axe, which takes most of the time, runs again only where the layout differs:
where another set of the media queries of the page's style sheets holds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

AXE = Path(__file__).parents[1] / "web" / "axe" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SCREENS = Path(__file__).parents[2] / "docs" / "screens"
"""Written where the environment has WRITE_SCREENS."""

WIDTHS = (360, 768, 1280, 1920)

PAGES_OF_ACCOUNTS = ("sign-in", "keys", "usage", "statement", "calls", "account", "members")
PAGES_OF_ADMINS = ("admin", "admin-usage", "admin-calls", "admin-log", "admin-account", "admin-upstreams")
SHOWN = ("playground", "playground-compare", "rates", *PAGES_OF_ACCOUNTS, *PAGES_OF_ADMINS)
SHOWN_AT = {1280: "", 360: "-360"}
"""The widths of pictures, and what their names end with."""

FITS = "document.documentElement.scrollWidth <= innerWidth"
LAYOUT = """() => {
  const holds = [];
  const visit = (rules) => {
    for (const rule of rules) {
      if (rule instanceof CSSMediaRule) holds.push(matchMedia(rule.conditionText).matches);
      if (rule.cssRules) visit(rule.cssRules);
    }
  };
  for (const sheet of document.styleSheets) visit(sheet.cssRules);
  return holds.join();
}"""
"""Which media queries hold."""

both_themes = pytest.mark.parametrize("theme", ["light", "dark"])


def check(page: Page, name: str, widths: Sequence[int] = WIDTHS) -> None:
    """axe finds no violation, however small, and nothing sticks out, at each width; a picture if it is wanted."""
    own = page.viewport_size
    assert own
    page.evaluate(AXE.read_text())
    layouts: set[str] = set()
    for width in sorted(widths, key=lambda width: width != own["width"]):
        page.set_viewport_size({"width": width, "height": own["height"]})
        assert page.evaluate(FITS), f"{name} is too wide at {width}"
        layout = page.evaluate(LAYOUT)
        if layout not in layouts:
            layouts.add(layout)
            assert violations(page) == [], f"{name} at {width}"
        if os.environ.get("WRITE_SCREENS") and name in SHOWN and width in SHOWN_AT:
            write_picture(page, name, SHOWN_AT[width])
    page.set_viewport_size(own)


def violations(page: Page) -> list[tuple[str, Any, str]]:
    """(rule, element, what is wrong) of each that axe finds. The page has loaded axe."""
    found: list[dict[str, Any]] = page.evaluate("async (runOnly) => (await axe.run({runOnly})).violations", RULES)
    return [(one["id"], node["target"], node["failureSummary"]) for one in found for node in one["nodes"]]


def write_picture(page: Page, name: str, ending: str) -> None:
    theme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    SCREENS.mkdir(exist_ok=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=SCREENS / f"{name}-{theme}{ending}.png", animations="disabled")
