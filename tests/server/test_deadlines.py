"""Deadlines on every path: the order, the marks, the bill. The model's clock is in the test's hands.

Each deadline comes while the model computes a document.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd import Client
from rerankd.accounts.store import Store
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.prices import MICRO
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import Prompt, RerankRequest
from support.fakes import NumberedModel, scorer_of
from support.payers import new_payer
from support.serving import serving, serving_model
from support.surfaces import ALL, COHERE_V1, COMPATIBLE, NIM, RERANK, Surface

DOCUMENTS = ["3", "1", "4", "9"]
AN_HOUR = 3_600_000


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


class HalfWay(NumberedModel):
    """While it computes the document after the second one, every deadline comes."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(self._look)
        self.clock, self.previous = clock, ""
        self.engines: list[Engine] = []

    def start(self, _: object) -> EngineScorer:
        """A server's scorer."""
        self.engines.append(Engine(self, clock=self.clock))
        return EngineScorer(self.engines[-1], self)

    def _look(self, document: str) -> None:
        if self.previous == DOCUMENTS[1]:
            self.clock.ahead += 10_000
            for engine in self.engines:
                engine.end_late()
        self.previous = document


@pytest.fixture
def model(clock: Clock) -> HalfWay:
    return HalfWay(clock)


@pytest.fixture
def client(model: HalfWay) -> Iterator[httpx2.Client]:
    with serving(model.start) as client:
        yield client


def rows(client: httpx2.Client, surface: Surface, clock: Clock, **options: Any) -> tuple[list[Any], httpx2.Response]:
    clock.ahead = 0.0
    answer = client.post(surface.path, json=surface.body("query", DOCUMENTS, **options))
    assert answer.status_code == 200, answer.text
    return surface.rows(answer.json()), answer


@pytest.mark.parametrize("surface", ALL, ids=str)
def test_the_rest_is_marked_and_last(surface: Surface, client: httpx2.Client, clock: Clock) -> None:
    found, answer = rows(client, surface, clock, deadline_ms=AN_HOUR)
    scores = surface.scores(answer)
    assert {row["index"]: row.get("scored", True) for row in found} == {0: True, 1: True, 2: False, 3: False}
    if surface.api != "vllm-score":  # in the call's order
        assert [index for index, _ in scores][:2] == [0, 1]
        assert sorted(scores, key=lambda one: -one[1]) == scores or surface.api == "tei"
    assert answer.headers["x-rerankd-warning"] == "2 of 4 documents were not scored before the deadline"


def test_the_header_and_the_setting_ask_for_the_same(model: HalfWay, clock: Clock) -> None:
    with serving(model.start, deadline_ms=AN_HOUR) as client:
        found, _ = rows(client, RERANK, clock)
        assert sum(row.get("scored", True) for row in found) == 2
    clock.ahead = 0.0
    with serving(model.start) as client:
        body = RERANK.body("query", DOCUMENTS)
        answer = client.post(RERANK.path, json=body, headers={"x-rerankd-deadline-ms": str(AN_HOUR)})
        assert sum(row.get("scored", True) for row in answer.json()["results"]) == 2
        for wrong in ("soon", "0", "-3", "1e3", "99999999"):
            refused = client.post(RERANK.path, json=body, headers={"x-rerankd-deadline-ms": wrong})
            assert refused.status_code == 400 and "x-rerankd-deadline-ms" in refused.text


def test_nothing_in_time_is_busy(client: httpx2.Client, clock: Clock) -> None:
    clock.ahead = 10_000.0
    for surface in (RERANK, COMPATIBLE, NIM):
        answer = client.post(surface.path, json=surface.body("query", DOCUMENTS, deadline_ms=1000))
        assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
        assert "No document was scored before the deadline" in answer.text


def test_without_a_deadline_nothing_is_marked(client: httpx2.Client, clock: Clock) -> None:
    found, answer = rows(client, RERANK, clock)
    assert not any("scored" in row for row in found) and "x-rerankd-warning" not in answer.headers


@pytest.mark.parametrize("dialect", ["vllm", "dashscope", "cohere", "tei", "nim"])
def test_the_client_reads_the_marks(dialect: Any, client: httpx2.Client) -> None:
    with Client(str(client.base_url), dialect=dialect, model="qwen3-rerank") as asking:
        ranking = asking.rank("query", DOCUMENTS, deadline_s=1000)
    assert [score.index for score in ranking] == [0, 1, 2, 3]
    assert [score.scored for score in ranking] == [True, True, False, False]
    assert ranking.to_dict()["results"][3]["scored"] is False


def test_search_units_count_what_was_scored(client: httpx2.Client, clock: Clock) -> None:
    clock.ahead = 0.0
    body = COHERE_V1.body("query", ["3", "1", *(str(number) for number in range(100, 250))], deadline_ms=AN_HOUR)
    assert client.post(COHERE_V1.path, json=body).json()["meta"]["billed_units"] == {"search_units": 1}


def test_a_call_that_was_scored_in_part_makes_no_other_one_free(
    model: HalfWay, clock: Clock, store: Store, tmp_path: Path
) -> None:
    served = Models(ServedModel(model.start))
    payer = new_payer(store, credit=100 * MICRO)
    card = tmp_path / "rerankd.toml"
    card.write_text("[rates.fake]\ninput_price = 1_000_000\n")  # a token costs one
    with serving_model(served, store=store, accounts=True, config=card) as client:
        headers = {"authorization": f"Bearer {payer.secret}", "x-request-id": "one"}
        in_part = {**headers, "x-rerankd-deadline-ms": str(AN_HOUR)}
        body = COMPATIBLE.body("query", DOCUMENTS)
        charged = []
        for sent in (in_part, headers, headers):
            clock.ahead = 0.0
            answer = client.post(COMPATIBLE.path, json=body, headers=sent)
            charged.append(answer.headers["x-rerankd-cost"])
        assert charged == ["4000000", "8000000", "0"]
        assert store.ledger.check() == []


def test_only_scored_documents_are_charged(model: HalfWay, clock: Clock, store: Store) -> None:
    served = Models(ServedModel(model.start))
    payer = new_payer(store)
    with serving_model(served, store=store, accounts=True) as client:
        headers = {"authorization": f"Bearer {payer.secret}"}
        body = COMPATIBLE.body("query", DOCUMENTS)
        answer = client.post(COMPATIBLE.path, json={**body, "deadline_ms": AN_HOUR}, headers=headers)
        assert answer.json()["usage"]["total_tokens"] == 2 * (1 + 1)
        assert answer.headers["x-rerankd-tokens"] == "4"
        clock.ahead = 0.0
        whole = client.post(COMPATIBLE.path, json=body, headers=headers)
        assert whole.headers["x-rerankd-tokens"] == "8"
        assert store.ledger.check() == []


class SlowToPrepare(NumberedModel):
    """Makes no prompts until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def encode(self, request: RerankRequest) -> list[Prompt]:
        assert self.may.wait(60)
        return super().encode(request)


def test_a_call_whose_prompts_are_not_made_in_time_is_answered_at_its_deadline() -> None:
    model = SlowToPrepare()
    documents = [str(number) for number in range(2000)]  # its work is not done on the event loop
    with serving(lambda _: scorer_of(model)) as client:
        try:
            answer = client.post(RERANK.path, json=RERANK.body("query", documents, deadline_ms=50))
            assert answer.status_code == 503 and "No document was scored before the deadline" in answer.text
            assert not model.may.is_set()
        finally:
            model.may.set()
        assert client.post(RERANK.path, json=RERANK.body("query", DOCUMENTS)).status_code == 200
