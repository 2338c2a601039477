"""What people do in the playground: open it, drop files, compare, cancel, save and come back, with or without a key."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from rerankd.accounts.usage import usage
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from support.fakes import NumberedModel, scorer_of
from support.playground import rank, settled
from support.server import Server, StartServer
from support.serving import serving_model
from support.site import PASSWORD, new_store
from support.waiting import wait_until

PATH = "/compatible-api/v1/reranks"
MAX_PAGE_BYTES = 150_000

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def free_server(start_server: StartServer) -> Server:
    return start_server("--model", "embedded")


def fill(page: Page, query: str, documents: str) -> None:
    page.fill("#query", query)
    page.fill("#documents", documents)


def drop(page: Page, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    page.set_input_files("#file", file)


def test_the_page_opens_with_a_ranking_and_is_light(free_server: Server, open_page: Open) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(8)
    sizes = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.decodedBodySize, 0)"
    assert page.evaluate(sizes) + len(page.content()) < MAX_PAGE_BYTES
    shifts = """() => new Promise((done) => {
        let sum = 0;
        new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
            .observe({ type: "layout-shift", buffered: true });
        requestAnimationFrame(() => requestAnimationFrame(() => done(sum)));
    })"""
    assert page.evaluate(shifts) < 0.1
    options = page.locator("#model-a option").all_inner_texts()
    assert options == ["embedded-multilingual"]  # its other names are beside the menu
    assert "qwen3-rerank" in page.locator("#side-a .also").text_content()  # type: ignore[operator]


def test_without_a_key_the_server_shows_its_own_ranking(embedded_server: Server, open_page: Open) -> None:
    page = open_page(f"{embedded_server.url}/")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    settled(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(8)
    page.select_option("#sample", "capitals")
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(6)
    expect(page.locator(".summary")).to_contain_text("free")
    assert set(sent) == {"GET"}


def test_files_are_read_or_refused_by_name(free_server: Server, open_page: Open, tmp_path: Path) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    count, alert = page.locator("#count"), page.get_by_role("alert")
    for name, content, kind in (
        ("report.pdf", b"%PDF-1.4 1 0 obj <<", "a PDF"),
        ("letter.docx", b"PK\x03\x04word", "Word"),
        ("photo.png", b"\x89PNG\r\n", "a picture"),
        ("data.bin", b"a\0b", "not a text file"),
    ):
        drop(page, tmp_path / name, content)
        expect(alert).to_contain_text(f"{name} is {kind}" if kind.startswith("a ") else kind)
        expect(page.locator("#documents")).not_to_have_value(content.decode("latin-1"))
    drop(page, tmp_path / "old.txt", "Café\nThé".encode("cp1252"))
    expect(page.locator("#documents")).to_have_value("Café\nThé")
    expect(page.locator("#note")).to_contain_text("Windows-1252")
    drop(page, tmp_path / "page.html", b"<html><script>x</script><h1>Head</h1><p>One  <b>two</b>.</p></html>")
    expect(page.locator("#documents")).to_have_value("Head\n\nOne two.")
    expect(count).to_have_text("2")
    drop(page, tmp_path / "table.csv", b'id,title,text\n1,A,"first, ""quoted"""\n2,B,"two\nlines"\n')
    expect(count).to_have_text("2")
    expect(page.locator("#column")).to_have_value("title")
    page.select_option("#column", "text")
    rank(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(2)
    assert set(page.locator(".text").all_text_contents()) == {'first, "quoted"', "two\nlines"}


def test_mistakes_are_told_in_the_pages_own_words(free_server: Server, open_page: Open) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    alert = page.get_by_role("alert")
    for text, told in (
        ('{"documents": [\n"x",\n]}', "Line 3 is not valid JSON"),
        ('{"text": "a"}\n{"text": b"}', "Line 2 is not valid JSON"),
        ('["a", {"title": "b"}]', "Document 1 has no text"),
        ("", "There are no documents"),
    ):
        page.fill("#documents", text)
        rank(page)
        expect(alert).to_contain_text(told)
        expect(alert).not_to_contain_text("400")
        expect(alert.get_by_role("button")).to_have_count(0)


def test_a_call_can_be_cancelled(free_server: Server, open_page: Open) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    held: list[Route] = []
    page.route(f"**{PATH}", lambda route: held.append(route))
    page.click("#rank")
    expect(page.locator("#working")).to_be_visible()
    expect(page.locator("#elapsed")).not_to_be_empty()
    page.click("#cancel")
    expect(page.locator("#working")).to_be_hidden()
    expect(page.locator("#said")).to_have_text("Cancelled.")
    page.click("#rank")
    expect(page.locator("#working")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#working")).to_be_hidden()
    page.unroute(f"**{PATH}")
    fill(page, "Egypt", "Bread\nEgypt")
    rank(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(2)


def test_comparing_begins_with_another_call(free_server: Server, open_page: Open) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    page.check("#compare")
    assert page.input_value("#instruct-b") == "Retrieve semantically similar text."
    assert page.input_value("#instruct-a") != page.input_value("#instruct-b")
    expect(page.locator("#unread-a")).to_be_visible()  # the embedded model reads no instruct


def test_a_ranking_is_saved_and_found_again(free_server: Server, open_page: Open) -> None:
    page = settled(open_page(f"{free_server.url}/"))
    fill(page, "Where is Egypt?", "=1+1\nEgypt is in Africa.\nBread, fresh")
    expect(page.locator("#estimate")).to_contain_text("tokens · free")
    rank(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(3)
    with page.expect_download() as saved:
        page.get_by_label("Export as CSV").click()
    rows = list(csv.DictReader(io.StringIO(saved.value.path().read_text("utf-8-sig"))))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["document"] for row in rows} == {"'=1+1", "Egypt is in Africa.", "Bread, fresh"}
    with page.expect_download() as saved:
        page.get_by_label("Export as JSON").click()
    (ranking,) = json.loads(saved.value.path().read_text())
    assert [str(one["index"]) for one in ranking["results"]] == [row["index"] for row in rows]
    fill(page, "another", "x\ny")
    rank(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(2)
    page.click("#history")
    page.click(".run >> text=Where is Egypt?")
    expect(page.locator("#query")).to_have_value("Where is Egypt?")
    settled(page)
    expect(page.locator(".ranked:not(.ghost) li")).to_have_count(3)
    latest = "JSON.parse(localStorage.getItem('rerankd-history'))[0].query"
    wait_until(lambda: page.evaluate(latest) == "Where is Egypt?")
    page.click("#history")
    page.click("#forget")
    expect(page.locator("#runs-list")).to_contain_text("No runs yet")
    assert page.evaluate("localStorage.getItem('rerankd-history')") is None


def test_who_is_signed_in_needs_no_key(open_page: Open, tmp_path: Path) -> None:
    store = new_store(tmp_path)
    config = tmp_path / "rerankd.toml"
    config.write_text('[rates."qwen3-rerank"]\ninput_price = 1000\n')
    user = store.accounts.create("user@example.com", "", PASSWORD)
    store.ledger.add_credits(user.id, 10_000_000)
    models = Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    with serving_model(models, store=store, accounts=True, config=config) as client:
        url = str(client.base_url).rstrip("/")
        page = open_page(f"{url}/rates")
        page.context.add_cookies(
            [{"name": "rerankd-session", "value": store.sessions.open(user.id), "url": f"{url}/", "httpOnly": True}]
        )
        page.goto(f"{url}/")
        settled(page)
        assert usage(store.database, ["key"]) == []  # opening the page costs nothing
        expect(page.locator("#key")).to_be_hidden()
        fill(page, "q", "1\n3\n2")
        page.check("#live")
        expect(page.locator("#live-cost")).to_be_visible()
        page.uncheck("#live")
        rank(page)
        expect(page.locator(".ranked:not(.ghost) li")).to_have_count(3)
        assert page.locator(".ranked li").evaluate_all("all => all.map((one) => one.dataset.index)") == ["1", "2", "0"]
        (row,) = usage(store.database, ["key"])
        assert row.calls >= 1 and row.cost > 0
        page.close()
