"""Several models in one server: which one answers to a name, and that none disturbs another."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd.engine.scorer import EngineScorer
from rerankd.errors import Loading, ModelNotFound
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import LoadProgress
from support.fakes import NumberedModel, scorer_of
from support.server import StartServer
from support.serving import serving_model

QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = ["Mars is red.", "Venus is hot.", "Bread is baked.", "The red planet is Mars, not Venus. " * 20]


def named(name: str) -> NumberedModel:
    model = NumberedModel()
    model.info = replace(model.info, name=name)
    return model


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    models = [ServedModel(lambda _, name=name: scorer_of(named(name))) for name in ("first", "second")]  # type: ignore[misc]
    with serving_model(Models(*models, aliases=("other",))) as client:
        yield client


def rank(client: httpx2.Client, model: str | None) -> httpx2.Response:
    body: dict[str, Any] = {"query": "q", "documents": ["1", "2"]}
    return client.post("/v1/rerank", json=body if model is None else {**body, "model": model})


@pytest.mark.parametrize(
    ("asked", "scored"),
    [("first", "first"), ("second", "second"), (None, "first"), ("qwen3-rerank", "first"), ("other", "first")],
)
def test_each_answers_to_its_name_and_the_first_to_all_others(
    client: httpx2.Client, asked: str | None, scored: str
) -> None:
    response = rank(client, asked)
    assert response.status_code == 200 and response.headers["x-rerankd-model"] == scored
    assert response.json()["model"] == (asked or scored)


def test_the_name_of_a_hosted_model_is_answered_with_a_warning(client: httpx2.Client) -> None:
    response = rank(client, "qwen3.7-text-rerank")
    assert response.status_code == 200 and response.json()["model"] == "qwen3.7-text-rerank"
    assert "qwen3.7-text-rerank was asked for, first scored" in response.headers["x-rerankd-warning"]


def test_the_names_of_all_are_listed_and_suggested(client: httpx2.Client) -> None:
    cards = {card["id"]: card["root"] for card in client.get("/v1/models").json()["data"]}
    assert cards["first"] == cards["qwen3-rerank"] == cards["other"] == "first"
    assert cards["second"] == client.get("/v1/models/second").json()["root"] == "second"
    response = rank(client, "third")
    assert response.status_code == 404 and "second" in response.text
    assert {model["id"] for model in client.get("/infinity/models").json()["data"]} == {"first", "second"}
    names = {model["id"] for model in client.get("/xinference/v1/models").json()["data"]}
    assert {"first", "second", "other"} <= names
    assert "second" in client.get("/").text, "the playground's menu"


def test_health_tells_of_each(client: httpx2.Client) -> None:
    health = client.get("/health").json()
    assert health["model"] == "first"
    assert [model["model"] for model in health["models"]] == ["first", "second"]


def test_metrics_name_the_model(client: httpx2.Client) -> None:
    for name in ("first", "second", "second"):
        assert rank(client, name).status_code == 200
    rank(client, "third")
    metrics = client.get("/metrics").text
    computed = dict(re.findall(r'rerankd_prompt_tokens_total\{model="(\w+)",source="computed"\} (\S+)', metrics))
    assert computed.keys() == {"first", "second"}
    assert float(computed["first"]) > 0 and float(computed["second"]) > 0
    answered = dict(
        re.findall(r'request_success_total\{engine="0",finished_reason="stop",model_name="(\w+)"\} (\S+)', metrics)
    )
    assert answered == {"first": "1.0", "second": "2.0"}
    for counted in (r'requests_total\{dialect="vllm-rerank",error="",', "request_seconds_count"):
        found = re.findall(rf'rerankd_{counted}.*model="(first|second)".* ([\d.]+)$', metrics, re.MULTILINE)
        assert sorted((name, value) for name, value in found if float(value)) == [("first", "1.0"), ("second", "2.0")]
    refused = re.findall(r'rerankd_requests_total\{.*error="ModelNotFound",model="(.*?)"', metrics)
    assert refused == [""]
    assert "third" not in metrics


def test_names_while_a_model_loads() -> None:
    go_on = threading.Event()

    def slow(progress: LoadProgress) -> EngineScorer:
        assert go_on.wait(60)
        return scorer_of(named("second"))

    models = Models(ServedModel(lambda _: scorer_of(named("first"))), ServedModel(slow))
    with serving_model(models, wait=False) as client:
        _wait_for(lambda: models.default.ready)
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "loading")
        assert rank(client, "first").status_code == 200
        with pytest.raises(Loading):
            models.find("second")
        assert rank(client, "second").status_code == 503
        go_on.set()
        _wait_for(lambda: models.ready)
        assert rank(client, "second").headers["x-rerankd-model"] == "second"
        with pytest.raises(ModelNotFound, match="third"):
            models.find("third")


def _wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def test_two_real_models_do_not_disturb_each_others_scores(
    start_server: StartServer, make_checkpoint: Callable[..., Path]
) -> None:
    folder = make_checkpoint()
    server = start_server("--model", str(folder), "--model", "embedded", "--dtype", "float32", "--skip-self-test")
    names = (folder.name, "embedded-multilingual")
    listed = {card["root"] for card in httpx2.get(f"{server.url}/v1/models").json()["data"]}
    assert listed == {*names}

    def scores(call: tuple[str, int]) -> list[float]:
        name, number = call
        body = {"model": name, "query": f"{QUERY} {number}", "documents": DOCUMENTS}
        response = httpx2.post(f"{server.url}/v1/rerank", json=body, timeout=60).raise_for_status()
        assert response.headers["x-rerankd-model"] == name
        by_index = sorted(response.json()["results"], key=lambda result: result["index"])
        return [result["relevance_score"] for result in by_index]

    calls = [(name, number) for number in range(8) for name in names]
    alone = {call: scores(call) for call in calls}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(scores, calls * 3))
    for call, found in zip(calls * 3, together, strict=True):
        assert found == pytest.approx(alone[call], abs=1e-4)
    assert all(alone[names[0], number] != alone[names[1], number] for number in range(8))
