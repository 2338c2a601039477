"""Deadlines through a router: what a server behind it did not score in time is marked, last, and not charged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from rerankd.accounts.store import Store
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.server.served_pool import ServedPool
from rerankd.types import Prompt
from rerankd.upstreams.settings import ModelSettings
from support.fakes import NumberedModel
from support.payers import Payer, new_payer
from support.routing import MODEL, Router, routing, upstream
from support.serving import serving, serving_model
from support.upstream_server import UpstreamServer
from support.waiting import wait_until

AN_HOUR_MS = 3_600_000
DOCUMENTS = ["3", "1", "4", "9"]
IN_PART = [(0, True), (1, True), (2, False), (3, False)]


class Worker(NumberedModel):
    """While it computes the document after the second one, every deadline comes. A text without a number has 0."""

    def __init__(self) -> None:
        super().__init__(self._look)
        self.ahead, self.previous = 0.0, ""
        self.engine = Engine(self, clock=lambda: time.monotonic() + self.ahead)

    def start(self, _: object) -> EngineScorer:
        return EngineScorer(self.engine, self)

    def _look(self, document: str) -> None:
        if self.previous == DOCUMENTS[1]:
            self.ahead += 10_000
            self.engine.end_late()
        self.previous = document

    def _number(self, prompt: Prompt) -> float:
        return super()._number(prompt) if prompt.document.isdigit() else 0.0


@pytest.fixture
def worker() -> Worker:
    return Worker()


@contextmanager
def routed(worker: Worker, store: Store, dialect: str = "rerankd", **own: Any) -> Iterator[tuple[Router, Payer]]:
    """A router with accounts in front of a server."""
    payer = new_payer(store)
    with serving(worker.start, **own) as server:
        behind = upstream("worker", str(server.base_url), dialect=dialect, skip_self_test=True)
        with routing(behind, store=store, settings={"accounts": True}) as router:
            router.client.headers["authorization"] = f"Bearer {payer.secret}"
            yield router, payer


def check_in_part(answer: httpx2.Response) -> int:
    """The charged tokens, where there are accounts."""
    assert answer.status_code == 200, answer.text
    rows = answer.json()["results"]
    assert [(row["index"], row.get("scored", True)) for row in rows] == IN_PART
    scores = [row["relevance_score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and scores[2] < scores[1]
    assert "2 of 4 documents were not scored before the deadline" in answer.headers["x-rerankd-warning"]
    return int(answer.headers.get("x-rerankd-tokens", 0))


def test_what_an_upstream_left_at_a_deadline_of_its_own(worker: Worker, store: Store) -> None:
    with routed(worker, store, deadline_ms=AN_HOUR_MS) as (router, _):
        tokens = check_in_part(router.rerank("query", DOCUMENTS))
        worker.ahead = 0.0
        one = router.rerank("query", DOCUMENTS[:1])
    assert tokens == 2 * int(one.headers["x-rerankd-tokens"]), "of two documents"
    assert store.ledger.check() == []


@pytest.mark.parametrize("dialect", ["rerankd", "vllm", "cohere", "tei"])
def test_the_caller_s_deadline_is_passed_on(dialect: str, worker: Worker, store: Store) -> None:
    with routed(worker, store, dialect) as (router, _):
        tokens = check_in_part(router.rerank("query", DOCUMENTS, deadline_ms=AN_HOUR_MS))
        worker.ahead = 0.0
        whole = router.rerank("query", DOCUMENTS)
        assert not any("scored" in row for row in whole.json()["results"])
    assert tokens == int(whole.headers["x-rerankd-tokens"]) // 2
    assert store.ledger.check() == []


def test_a_server_has_the_time_that_is_left() -> None:
    with UpstreamServer() as server, routing(upstream("a", server)) as router:
        for given in ("60000", None):
            headers = {} if given is None else {"x-rerankd-deadline-ms": given}
            body = {"query": "q", "documents": ["d"]}
            assert router.client.post("/v1/rerank", json=body, headers=headers).status_code == 200
        with_deadline, without = (one.headers for one in server.asked[-2:])
    assert 0 < int(with_deadline["x-rerankd-deadline-ms"]) <= 60_000 - 20
    assert "x-rerankd-deadline-ms" not in without


def test_too_short_a_deadline_is_not_the_upstream_s_fault(worker: Worker, store: Store) -> None:
    with routed(worker, store) as (router, payer):
        before = store.accounts.by_id(payer.account_id)
        worker.ahead = 10_000.0
        answer = router.rerank("query", DOCUMENTS, deadline_ms=AN_HOUR_MS)
        assert answer.status_code == 504 and "Nothing was charged" in answer.text
        assert router.state("worker") == "closed", "it neither rests nor fails"
        worker.ahead = 0.0
        assert router.rerank("query", DOCUMENTS[:1]).status_code == 200
    assert before is not None and store.ledger.check() == []


def test_an_engine_in_the_same_process_answers_in_part(worker: Worker) -> None:
    with UpstreamServer() as server:
        settings = ModelSettings.model_validate({"upstreams": [upstream("a", server)], "local": "first"})
        engine = ServedModel(worker.start)
        served = ServedPool(MODEL, lambda: settings, local=engine)
        with serving_model(Models(served, engine)) as client:
            wait_until(lambda: served.pool.member("a").breaker.state == "closed")
            body = {"query": "query", "documents": DOCUMENTS, "deadline_ms": AN_HOUR_MS}
            answer = client.post("/v1/rerank", json=body)
            check_in_part(answer)
            assert answer.headers["x-rerankd-upstream"] == "local"
