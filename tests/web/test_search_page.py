"""The page Search in a real browser, against a real server with an index."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest
from playwright.sync_api import Page, expect

from rerankd import Index
from support.looks import both_themes, check
from support.server import Server, StartServer

Open = Callable[..., Page]

FILES = {
    "accounts/keys.md": "# Keys\n\n" + "Every caller has a name of its own. " * 12 + "\n\n## Rotation\n\n"
    "A key is rotated on the page Keys. The old key works for another hour. 🔑 Then it is gone.\n",
    "bills.md": "# Bills\n\nA bill comes by mail on the first of a month. It names each key.\n",
    "<b>nasty</b>.md": "The key is <script>alert(1)</script>\n",
}


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("search")
    for name, text in FILES.items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Index(folder / "docs", folder=folder / "index", first="hybrid")
    return start_server("--model", "embedded", "--index", str(folder / "index"), key="test-key")


def opened(open_page: Open, server: Server, fragment: str = "", **options: object) -> Page:
    """The page, once its script runs, with the server's key."""
    page = open_page(f"{server.url}/search{fragment}", **options)
    expect(page.locator("#search[data-started]")).to_be_attached()
    page.fill("#key", server.key)
    return page


def test_a_question_finds_file_lines_and_sentence(open_page: Open, server: Server) -> None:
    page = opened(open_page, server)
    page.fill("#query", "how do I rotate a key?")
    page.keyboard.press("Enter")
    keys = page.locator(".ranked li").filter(has_text="accounts/keys.md").first
    expect(keys.locator("mark")).to_have_text("A key is rotated on the page Keys.")
    assert keys.locator("mark").text_content() == "A key is rotated on the page Keys.", "no space behind it"
    body = {"query": "how do I rotate a key?", "passages": {"highlight": True}}
    results = server.post("/v1/search", body).json()["results"]
    assert page.locator(".file").all_inner_texts() == [one["path"] for one in results]
    best = next(one for one in results if one["path"] == "accounts/keys.md")
    expect(keys.locator(".score")).to_have_text(f"{best['score']:.4f}")
    expect(keys.locator(".hint")).to_have_text(f"{best['first']}–{best['last']}")
    expect(page.locator("text=<b>nasty</b>.md")).to_be_visible()  # as text
    page.fill("#query", "zebra")
    page.keyboard.press("Enter")
    expect(page.locator("#output")).to_contain_text("No part of the files has a word of this.")


def test_files_are_found_by_meaning(open_page: Open, server: Server) -> None:
    page = opened(open_page, server)
    page.fill("#query", "Wann kommt die Rechnung?")
    page.keyboard.press("Enter")
    expect(page.locator("#output")).to_contain_text("No part of the files has a word of this.")
    page.select_option("#first", "dense")
    expect(page.locator(".file").first).to_have_text("bills.md", timeout=120_000)  # the embedder loads
    page.get_by_label("Found by").select_option("both")
    expect(page.locator("#search")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#output .hint").first).to_contain_text("The best")


def test_a_link_holds_the_query_and_no_key(open_page: Open, server: Server) -> None:
    page = opened(open_page, server)
    page.fill("#query", "bill & key 🔑")
    page.keyboard.press("Enter")
    expect(page.locator(".ranked li").first).to_be_visible()
    address = page.evaluate("location.href")
    assert "test-key" not in address and address.endswith("#bill%20%26%20key%20%F0%9F%94%91")
    again = open_page(address)  # without a key
    expect(again.get_by_role("alert")).to_contain_text("401")
    assert again.input_value("#query") == "bill & key 🔑"


@both_themes
def test_it_looks_right(open_page: Open, server: Server, theme: str) -> None:
    page = opened(open_page, server, color_scheme=theme)
    check(page, "search-empty")
    page.fill("#query", "when does an old key stop?")
    page.keyboard.press("Enter")
    expect(page.locator(".ranked li").first).to_be_visible()
    check(page, "search")


def test_without_an_index_there_is_no_page(embedded_server: Server) -> None:
    assert httpx2.get(f"{embedded_server.url}/search").status_code == 404
    assert "/search" not in httpx2.get(embedded_server.url).text
