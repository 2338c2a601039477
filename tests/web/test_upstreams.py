"""The upstreams on the page for administrators, of a router in front of servers that fail."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect

from rerankd.accounts.accounts import Account
from rerankd.accounts.store import Store, open_store
from support import upstream_server as failing
from support.looks import both_themes, check
from support.routing import MODEL, Router, routing, upstream
from support.site import PASSWORD
from support.upstream_server import UpstreamServer

PATH = "/admin/upstreams/probe"
KEY = "sk-upstream-secret-key"

CELL = r'(?<=<th scope="row" class="named">)[^<]*|(?<=<span class="hint">)[^<]*(?=</span></th>)|<td.*?</td>'
"""The name of an upstream, its place, and the cells behind them."""


@dataclass
class Watched:
    """A router with accounts, the two servers behind it, and its administrator."""

    router: Router
    good: UpstreamServer
    bad: UpstreamServer
    store: Store
    admin: Account
    open: ExitStack

    @property
    def url(self) -> str:
        return str(self.router.client.base_url).rstrip("/")

    def call(self) -> None:
        """One answered call."""
        account = self.store.accounts.by_email("admin@example.com")
        assert account
        _, key = self.store.keys.create(account.id, "search page")
        body = {"query": "Which planet has rings?", "documents": ["Saturn", "Mars"]}
        self.router.client.post("/v1/rerank", json=body, headers={"authorization": f"Bearer {key}"}).raise_for_status()

    def browser(self, account: Account) -> httpx2.Client:
        """A signed-in visitor, without scripts."""
        client = self.open.enter_context(httpx2.Client(base_url=self.url, timeout=60))
        client.cookies.set("rerankd-session", self.store.sessions.open(account.id))
        return client

    def csrf(self, client: httpx2.Client) -> str:
        session = self.store.sessions.find(client.cookies["rerankd-session"])
        assert session
        return session.csrf


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """The second server has the documents in the wrong order."""
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    database = f"sqlite:///{tmp_path / 'accounts.db'}"
    store = open_store(database)
    admin = store.accounts.create("admin@example.com", "Ada", PASSWORD, "admin")
    store.ledger.add_credits(admin.id, 25_000_000, "start", None)
    config = tmp_path / "rerankd.toml"
    config.write_text(f'[rates."{MODEL}"]\ninput_price = 0.1\n')
    settings = {"accounts": True, "database": database, "config": config}
    with UpstreamServer(key=KEY) as good, UpstreamServer("tei") as bad:
        bad.fault = failing.INVERTED
        behind = (
            upstream("gpu-1", good, model="Qwen/Qwen3-Reranker-0.6B", api_key="env:UPSTREAM_KEY", weight=4),
            upstream("tei-reserve", bad, tier=1),
        )
        with routing(*behind, wait=False, settings=settings, store=store, estimate=True) as router:
            router.wait_for(**{"gpu-1": "closed", "tei-reserve": "wrong"})
            with ExitStack() as stack:
                yield Watched(router, good, bad, store, admin, stack)
    store.database.close()


def rows_of(page: str) -> dict[str, list[str]]:
    """The cells of each upstream's row, by its name, as a reader sees them."""
    table = page.partition('id="upstreams"')[2].partition("</table>")[0]
    found = {}
    for row in table.split("<tr>")[2:]:
        name, *cells = re.findall(CELL, row, re.S)
        found[name] = [re.sub(r"<[^>]*>", "", cell).strip() for cell in cells]
    return found


def test_a_row_tells_how_an_upstream_is(watched: Watched) -> None:
    watched.call()
    page = watched.browser(watched.admin).get("/admin/server").text
    rows = rows_of(page)
    assert set(rows) == {"gpu-1", "tei-reserve"}
    good, bad = rows["gpu-1"], rows["tei-reserve"]
    assert good[0] == "qwen3-rerank, asked for Qwen/Qwen3-Reranker-0.6B: tier 0, weight 4"
    assert good[1].startswith("answers") and "Last check: The published logits" in good[1]
    assert good[2] == "100%" and re.fullmatch(r"\d+ ms|\d+\.\d\d s", good[3]) and good[4:] == ["1", "0"]
    assert bad[0] == "qwen3-rerank: tier 1, weight 1"
    assert bad[1].startswith("wrong scores") and "is not first" in bad[1]
    assert bad[2:] == ["0%", "–", "0", "0"]
    for secret in (KEY, watched.good.url, watched.bad.url):
        assert secret not in page


def test_the_button_checks_an_upstream_at_once(watched: Watched) -> None:
    browser = watched.browser(watched.admin)
    watched.bad.fault = None
    form = {"csrf": watched.csrf(browser), "model": MODEL, "upstream": "tei-reserve"}
    response = browser.post(PATH, data=form)
    assert (response.status_code, response.headers["location"]) == (303, "/admin/server#upstreams")
    assert watched.router.state("tei-reserve") == "closed"
    assert rows_of(browser.get("/admin/server").text)["tei-reserve"][1].startswith("answers")


def test_only_an_administrator_s_own_page_has_it_checked(watched: Watched) -> None:
    user = watched.browser(watched.store.accounts.create("user@example.com", "", PASSWORD))
    admin = watched.browser(watched.admin)
    form = {"model": MODEL, "upstream": "gpu-1"}
    looked = len(watched.good.asked)
    assert user.post(PATH, data={**form, "csrf": watched.csrf(user)}).status_code == 403
    for token in ("", watched.csrf(user)):
        assert admin.post(PATH, data={**form, "csrf": token}).status_code == 403
    own = {**form, "csrf": watched.csrf(admin)}
    assert admin.post(PATH, data=own, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert httpx2.post(watched.url + PATH, data=own).status_code == 303  # to the sign-in
    assert len(watched.good.asked) == looked
    gone = admin.post(PATH, data={**own, "upstream": "gpu-7"})
    assert gone.status_code == 400 and "There is no such upstream any more." in gone.text


@both_themes
def test_the_rows_look_right(watched: Watched, open_page: Callable[..., Page], theme: str) -> None:
    watched.call()
    page = open_page(f"{watched.url}/sign-in?next=/admin/server", color_scheme=theme)
    page.fill("#email", "admin@example.com")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{watched.url}/admin/server")
    expect(page.get_by_text("wrong scores")).to_be_visible()
    check(page, "admin-upstreams")
    watched.bad.fault = None
    page.get_by_role("button", name="Probe now: tei-reserve").click()
    page.wait_for_url(f"{watched.url}/admin/server#upstreams")
    expect(page.get_by_text("wrong scores")).to_have_count(0)
    check(page, "admin-upstreams-probed")
