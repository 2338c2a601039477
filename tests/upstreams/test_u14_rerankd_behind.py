"""U14: rerankd in front of rerankd over HTTP: the same logits to the bit, and shares by weight."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import httpx2
import pytest

from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.testing import FakeModel
from rerankd.types import LoadProgress, Prompt
from support.routing import routing, upstream
from support.server import Server
from support.serving import serving
from support.upstream_server import UpstreamServer

QUERY = "What is the capital of China?"
DOCUMENTS = [f"Document {number} tells of the city {number * 7919 % 101}." for number in range(20)]

SECONDS_A_DOCUMENT = 0.002


def scores_of(response: httpx2.Response) -> list[tuple[int, float]]:
    response.raise_for_status()
    return [(one["index"], one["relevance_score"]) for one in response.json()["results"]]


def test_u14_the_same_logits_to_the_bit(qwen_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real engine behind it. A score is the sigmoid of the logit in both servers."""
    monkeypatch.setenv("WORKER_KEY", qwen_server.key)
    worker = upstream(
        "worker", qwen_server.url, dialect="rerankd", api_key="env:WORKER_KEY", skip_self_test=True, timeout_s=60
    )
    body = {"query": QUERY, "documents": DOCUMENTS}
    with routing(worker) as router:
        for use_activation in (False, True):
            asked = {**body, "use_activation": use_activation}
            direct, routed = qwen_server.post("/v1/rerank", asked), router.client.post("/v1/rerank", json=asked)
            assert scores_of(routed) == scores_of(direct)
            assert len(scores_of(routed)) == len(DOCUMENTS)
        explained = qwen_server.post("/v1/rerank", {**body, "explain": True}).json()["results"]
        logits = [(one["index"], one["explain"]["logit"]) for one in explained]
        assert scores_of(router.client.post("/v1/rerank", json={**body, "use_activation": False})) == logits


def test_an_explanation_comes_through_a_router(qwen_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KEY", qwen_server.key)
    worker = upstream("worker", qwen_server.url, dialect="rerankd", api_key="env:WORKER_KEY", skip_self_test=True)
    body = {"query": QUERY, "documents": DOCUMENTS, "explain": {"prompt": 0}}
    with routing(worker) as router:
        direct, routed = qwen_server.post("/v1/rerank", body), router.client.post("/v1/rerank", json=body)
        assert "explain.prompt ignored: another server scored" in routed.headers["x-rerankd-warning"]
        for ours, theirs in zip(routed.json()["results"], direct.json()["results"], strict=True):
            theirs["explain"].pop("prompt", None)
            assert {**ours["explain"], "cached": None} == {**theirs["explain"], "cached": None}
            assert ours["explain"]["prompt_tokens"] > 0


class SteadyModel(FakeModel):
    """Takes its time for each document, as a processor does. speed: times as fast as another one."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self.speed = speed

    def answer(self, batch: Sequence[Prompt]) -> list[float]:
        time.sleep(SECONDS_A_DOCUMENT * len(batch) / self.speed)
        return super().answer(batch)


def _starting(model: SteadyModel) -> Callable[[LoadProgress], EngineScorer]:
    return lambda _: EngineScorer(Engine(model), model)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1)])
def test_u14_two_workers_share_by_weight(weights: tuple[int, int]) -> None:
    """Under a load that keeps both busy. A weight says how fast a worker is beside the others."""
    models = [SteadyModel(weight) for weight in weights]
    with ExitStack() as stack:
        urls = [str(stack.enter_context(serving(_starting(model))).base_url) for model in models]
        workers = [
            upstream(f"worker-{place}", url, dialect="rerankd", skip_self_test=True, weight=weight)
            for place, (url, weight) in enumerate(zip(urls, weights, strict=True))
        ]
        router = stack.enter_context(routing(*workers))
        responses = router.rerank_often(400, threads=8, documents=5)
        assert all(response.status_code == 200 for response in responses)
        answered = [router.member(f"worker-{place}").stats.outcomes["answered"] for place in range(2)]
    assert sum(answered) == 400
    share = answered[0] / sum(answered)
    assert share == pytest.approx(weights[0] / sum(weights), rel=0.1)


def test_u14_single_calls_go_by_weight() -> None:
    """The query decides where neither is busy, so the shares are those of a fair coin: 1.4 of 100 calls off or so."""
    with UpstreamServer() as heavy, UpstreamServer() as light:
        with routing(upstream("heavy", heavy, weight=3), upstream("light", light)) as router:
            assert all(response.status_code == 200 for response in router.rerank_often(1000, threads=1, documents=1))
            answered = {name: router.member(name).stats.outcomes["answered"] for name in ("heavy", "light")}
    assert answered == pytest.approx({"heavy": 750, "light": 250}, rel=0.1)
