"""The page's slider of thresholds, and the best passage of a long document, in a real browser."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator

import httpx2
import pytest
from playwright.sync_api import Page, expect

from rerankd.testing import FakeModel
from rerankd.types import sigmoid
from support.fakes import scorer_of
from support.playground import rank, settled
from support.serving import serving

QUERY = "where do cloves grow"
ANSWER = "Most cloves grow on the island of Pemba 🌴 today. "
TOWN = "The harbour town 🏝️ ships nutmeg and cinnamon. "
LONG = TOWN * 6 + ANSWER + TOWN * 6
DOCUMENTS = ["Bread is baked.", LONG, "Gravity is a force."]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    """A model that likes cloves; its passages have 16 words at most."""
    model = FakeModel(
        lambda prompt: 4.0 if "cloves" in prompt.document else zlib.crc32(prompt.document.encode()) % 3 - 3
    )
    with serving(lambda _: scorer_of(model), passage_tokens=16) as client:
        yield client


@pytest.fixture
def page(client: httpx2.Client, open_page: Callable[..., Page]) -> Page:
    page = open_page(f"{client.base_url}/")
    settled(page)
    page.fill("#query", QUERY)
    page.fill("#documents", json.dumps(DOCUMENTS))
    return page


def test_the_best_passage_is_marked_in_the_text(page: Page, client: httpx2.Client) -> None:
    page.click("#more summary")
    page.check("#passages")
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(3)
    reply = client.post("/v1/rerank", json={"query": QUERY, "documents": DOCUMENTS, "passages": True}).json()
    [best] = reply["results"][0]["passages"]
    assert reply["results"][0]["index"] == 1 and ANSWER in LONG[best["start"] : best["end"]] + " "
    shown = page.locator("li[data-index='1'] .text")
    marked = LONG[best["start"] : best["end"]].rstrip()  # the white space behind it is outside the mark
    assert shown.locator("mark").text_content() == marked, "code points, not halves of them"
    assert shown.text_content() == LONG
    expect(page.locator("li[data-index='1'] .meta")).to_contain_text(f"best of {reply['results'][0]['num_passages']}")
    expect(page.locator("mark")).to_have_count(1)


def test_the_slider_greys_what_min_score_would_leave_out(page: Page, client: httpx2.Client) -> None:
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(3)
    told, slider = page.locator(".threshold output"), page.locator("#min-score")
    expect(told).to_have_text("≥ 0.00: 3 of 3 kept")
    for threshold in (0.1, 0.2, 0.9, sigmoid(4.0) + 0.01):
        slider.fill(f"{threshold:.2f}")
        body = {"query": QUERY, "documents": DOCUMENTS, "min_score": round(threshold, 2)}
        kept = [row["index"] for row in client.post("/v1/rerank", json=body).json()["results"]]
        expect(told).to_have_text(f"≥ {threshold:.2f}: {len(kept)} of 3 kept")
        under = page.locator(".ranked li.under").evaluate_all("all => all.map((one) => Number(one.dataset.index))")
        assert sorted(under) == sorted({0, 1, 2} - set(kept))
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".ranked li.under")).to_have_count(0)


def test_the_best_sentence_is_marked_in_the_text(page: Page) -> None:
    page.click("#more summary")
    page.check("#highlight")
    rank(page)
    expect(page.locator(".ranked li")).to_have_count(3)
    expect(page.locator(".ranked mark")).to_have_text([ANSWER.strip()])
    expect(page.locator(".ranked li").first.locator("mark")).to_be_visible()
    page.uncheck("#highlight")
    rank(page)
    expect(page.locator(".ranked mark")).to_have_count(0)
