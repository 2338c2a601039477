"""A pytest plugin: a test that fails shows the end of its servers' logs, and its pages as text.

A failure on another machine may come once only: its cause has to be in the report.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from support.server import RUNNING

if TYPE_CHECKING:
    from playwright.sync_api import Page

NUM_LINES = 30
"""Of a log, and of what happened on a page."""

NUM_CHARS = 3000
"""Of the text of a page."""

PAGES: list[WatchedPage] = []
"""Those of the running test."""


@dataclass
class WatchedPage:
    """A page of a browser. events: its requests, and what its scripts said."""

    page: Page
    events: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("response", lambda reply: self.events.append(f"{reply.status} {reply.request.method} {reply.url}"))
        self.page.on("requestfailed", lambda asked: self.events.append(f"{asked.failure} {asked.method} {asked.url}"))
        self.page.on("console", lambda said: self.events.append(f"{said.type}: {said.text}"))

    def described(self) -> str:
        """Address, text and last events."""
        try:
            text = self.page.locator("body").inner_text(timeout=2000)[:NUM_CHARS]
        except Exception as error:  # whatever it is, the test's own failure is what counts
            text = f"It cannot be read: {error}"
        return "\n".join((self.page.url, text, "-- last events", *self.events[-NUM_LINES:]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when != "teardown":
        report.sections += list(_sections(item))
    return report


def _sections(item: pytest.Item) -> Iterator[tuple[str, str]]:
    for watched in PAGES:
        yield "page", watched.described()
    fixtures: Any = getattr(item, "fixturenames", ())
    if "start_server" in fixtures:
        for server in RUNNING:
            state = "runs" if server.process.poll() is None else f"ended with {server.process.returncode}"
            yield f"log of {server.url or 'a server'}, which {state}", "".join(server.log[-NUM_LINES:])
