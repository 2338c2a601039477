"""GET /v1/rates and the prices in GET /v1/models: always what the settings file says now."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd.engine.embedded.model import LANGUAGES
from support.server import Server, StartServer, refusal

CARD = """\
requests_per_minute = 60

[rates."qwen3-rerank"]
input_price = 0.020
free_tokens = 1_000_000
free_days = 90
context = 32_768
languages = "100+"
description = "Ranks."
tokens_per_minute = 2_000_000

[rates.elsewhere]
input_price = 1e3
"""

LISTED = {
    "model": "qwen3-rerank",
    "input_price": "0.020",
    "currency": "USD",
    "unit": "1M tokens",
    "free_tokens": 1_000_000,
    "free_days": 90,
    "context": 8192,  # of the loaded model, not of the list
    "languages": ", ".join(LANGUAGES),
    "description": "Ranks.",
    "limits": {"requests_per_minute": 60, "tokens_per_minute": None, "concurrency": None},  # the list's are accounts'
    "counted": "exact",
}


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "rerankd.toml"
    path.write_text(CARD)
    return path


@pytest.fixture
def priced_server(card: Path, start_server: StartServer) -> Server:
    return start_server("--model", "embedded", "--config", str(card), key="test-key")


def models(server: Server) -> list[dict[str, Any]]:
    response = httpx2.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {server.key}"})
    return list(response.json()["data"])


def test_the_card_is_shown_to_everybody_as_it_is_now(priced_server: Server, card: Path) -> None:
    def shown() -> dict[str, Any]:
        return dict(httpx2.get(f"{priced_server.url}/v1/rates").json())

    reply = shown()
    assert reply["object"] == "list" and reply["currency"] == "USD"
    first, second = reply["data"]
    assert first == LISTED
    assert (second["model"], second["input_price"]) == ("elsewhere", "1000")
    # Every name of the one served model costs what the name on the card does.
    assert all(model["rerankd"] == LISTED for model in models(priced_server))
    assert len(models(priced_server)) > 1

    card.write_text(CARD.replace("0.020", "0.03") + '\n[rates.more]\ncurrency = "USD"\n')
    assert [price["input_price"] for price in shown()["data"]] == ["0.03", "1000", "0"]
    assert all(model["rerankd"]["input_price"] == "0.03" for model in models(priced_server))

    card.write_text("[rates")
    assert [price["input_price"] for price in shown()["data"]] == ["0.03", "1000", "0"]
    priced_server.wait_until(lambda: "The price list stays as it was" in "".join(priced_server.log))


def test_the_page_shows_the_same(priced_server: Server) -> None:
    page = httpx2.get(f"{priced_server.url}/rates").text
    row = page[page.index("<tbody>") : page.index("</tr>", page.index("<tbody>"))]
    cells = dict(re.findall(r'data-label="([^"]+)">([^<]*)<', row))
    assert cells == {
        "Price per 1M tokens": "0.020 USD",
        "Free tokens": "1,000,000 for 90 days",
        "Context": "8,192",
        "Languages": ", ".join(LANGUAGES),
        "Requests/min": "60",
        "Tokens/min": "no limit",
        "At once": "no limit",
    }
    assert "32,768" not in page and "100+" not in page  # the list's words, of another model


def test_without_a_card(embedded_server: Server) -> None:
    reply = httpx2.get(f"{embedded_server.url}/v1/rates").json()
    assert reply == {"object": "list", "currency": "USD", "data": []}
    assert all("rerankd" not in model for model in models(embedded_server))


def test_a_card_for_nothing_that_is_served_stops_the_start(tmp_path: Path) -> None:
    card, database = tmp_path / "rerankd.toml", f"sqlite:///{tmp_path / 'a.db'}"
    card.write_text('[rates."qwen3-rernk"]\ninput_price = 1\n')
    told = refusal("--model", "embedded", "--accounts", "--database", database, "--config", str(card))
    assert 'There is [rates."qwen3-rernk"]; the model answers to' in told
