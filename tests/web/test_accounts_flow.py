"""From an account to its bill and back, in a browser, against the real server."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect

from rerankd.accounts.store import Store, open_store
from support.playground import rank, settled
from support.server import Server, StartServer
from support.site import PASSWORD, PRICES

PATH = "/compatible-api/v1/reranks"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('accounts') / 'rerankd.db'}"


@pytest.fixture(scope="module")
def store(database: str) -> Iterator[Store]:
    """With the first administrator, made as docs/accounts.md says."""
    command = [sys.executable, "-m", "rerankd", "accounts", "create", "--admin", "--password-stdin"]
    command += ["--database", database, "--name", "Ada", "admin@example.com"]
    subprocess.run(command, input=f"{PASSWORD}\n", text=True, check=True, capture_output=True)
    opened = open_store(database)
    yield opened
    opened.database.close()


@pytest.fixture(scope="module")
def server(start_server: StartServer, database: str, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Server:
    config = tmp_path_factory.mktemp("config") / "rerankd.toml"
    config.write_text(PRICES.replace("input_price = 0.1", "input_price = 5").replace("1_000_000", "100"))
    return start_server("--model", "embedded", "--accounts", "--database", database, "--config", str(config))


def test_account_key_playground_usage_revocation(
    server: Server, store: Store, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page(server.url)
    page.click("header >> text=Sign in")
    page.fill("#email", "admin@example.com")
    page.fill("#password", PASSWORD)
    page.click("main >> role=button")
    page.wait_for_url(f"{server.url}/")

    # Credit for the account itself
    page.click("nav >> text=Admin")
    page.click("text=admin@example.com")
    page.fill("#amount", "2.50")
    page.click("text=Add >> nth=-1")
    expect(page.get_by_role("status")).to_have_text("2.50 USD is added. The new balance is 2.50 USD.")

    # A key, straight into the playground
    page.click("nav >> text=Keys")
    page.fill("#name", "from the browser")
    page.click("text=Create the key")
    secret = page.locator("#secret").text_content() or ""
    page.click("text=Use it in the playground")
    expect(page.locator("#key")).to_have_value(secret)
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(8)
    figures = page.locator(".summary dd").all_inner_texts()
    tokens, cost = int(figures[1]), figures[2]
    billed = tokens - 100  # free ones
    assert billed > 0
    assert cost == f"{billed * 5 / 1e6:f}".rstrip("0") + " USD"

    # The same on the page of usage
    page.click("nav >> text=Usage")
    left = f"{(2_500_000 - billed * 5) / 1e6:f}".rstrip("0")
    expect(page.locator(".tiles")).to_contain_text(f"{left} USD")
    row = page.get_by_role("region", name="Usage by key").locator("tbody tr")
    expect(row).to_have_count(1)
    assert "from the browser" in row.locator("th").inner_text()
    cells = row.locator("td").all_inner_texts()
    assert [cell for cell in cells if cell.strip()] == ["1", "0", str(tokens), "100", str(billed), cost]
    with page.expect_download() as download:
        page.click("text=Download as CSV")
    file = tmp_path / "usage.csv"
    download.value.save_as(file)
    (line,) = csv.DictReader(io.StringIO(file.read_text()))
    assert (line["tokens"], line["free_tokens"], f"{line['cost']} USD") == (str(tokens), "100", cost)
    assert store.ledger.check() == []

    # Revoked: refused at once
    page.click("nav >> text=Keys")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("role=button[name='Revoke from the browser']")
    expect(page.locator(".empty")).to_contain_text("No keys yet")
    body = {"model": "qwen3-rerank", "query": "q", "documents": ["d"]}
    response = httpx2.post(server.url + PATH, json=body, headers={"authorization": f"Bearer {secret}"})
    assert response.status_code == 401
    page.click("nav >> text=Playground")
    rank(page)
    expect(page.get_by_role("alert")).to_contain_text("Incorrect API key provided.")
    page.click("text=create one")
    page.wait_for_url("**/keys")


def test_no_credit_is_told_with_a_way_out(server: Server, store: Store, open_page: Callable[..., Page]) -> None:
    account = store.accounts.create("poor@example.com", "", PASSWORD)
    _, secret = store.keys.create(account.id, "a key")
    page = settled(open_page(server.url))
    page.fill("#key", secret)
    rank(page)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("insufficient_quota")
    expect(alert).to_contain_text("An administrator of this server can add credits")


def test_the_servers_own_figures(server: Server, open_page: Callable[..., Page]) -> None:
    page = open_page(f"{server.url}/sign-in?next=/admin/server")
    page.fill("#email", "admin@example.com")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{server.url}/admin/server")
    expect(page.locator("[data-tile='Health']")).to_have_text("ready: embedded-multilingual")
    expect(page.locator("[data-tile='Running']")).to_have_text("0")
