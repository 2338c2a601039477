"""What stands in for a model that cannot be had: where it may, and how the model takes its place."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from rerankd.config import ServerSettings, read_settings
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import HubUnreachable
from rerankd.server import served as served_module
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.testing import INFO
from support.fakes import NumberedModel, scorer_of
from support.server import Server, StartServer
from support.serving import serving_model
from support.surfaces import RERANK
from support.waiting import wait_until


def stand_in_model() -> NumberedModel:
    return NumberedModel(info=replace(INFO, name="stand-in", notice="This is a stand-in.", is_fallback=True))


@pytest.mark.parametrize(
    ("options", "may"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"uds": "/run/x.sock"}, True),
        ({"fallback": False}, False),
        ({"api_key": "x"}, False),
        ({"accounts": True}, False),
        ({"host": "0.0.0.0", "no_auth": True}, False),
        ({"host": "10.0.0.1", "api_key": "x"}, False),
    ],
    ids=str,
)
def test_where_others_call_nothing_stands_in(options: dict[str, object], may: bool) -> None:
    assert read_settings(ServerSettings, options, {}).may_fall_back is may


@pytest.mark.parametrize("options", [("--no-fallback",), ("--api-key", "x"), ("--host", "0.0.0.0", "--no-auth")])
def test_a_server_for_others_does_not_start_without_its_model(
    options: tuple[str, ...], tmp_path: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = {**os.environ, "HF_HOME": str(tmp_path)}
    server = start_server("--offline", *options, env=env, wait=False)
    assert server.process.wait(60) == 1
    wait_until(lambda: any("--offline forbids" in line for line in server.log))
    assert "Ready" not in "".join(server.log) and "Traceback" not in "".join(server.log)


def test_the_model_takes_its_place_when_it_can_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_module, "RETRY_S", 0.05)
    reachable, tries = threading.Event(), []

    def retry() -> EngineScorer:
        tries.append(1)
        if not reachable.is_set():
            raise HubUnreachable("no answer")
        return scorer_of(NumberedModel())

    stand_in = stand_in_model()
    served = Models(ServedModel(lambda progress: scorer_of(stand_in), retry), any_size=True)
    with caplog.at_level(logging.INFO, "rerankd"), serving_model(served) as client:
        assert client.get("/health").json()["fallback"] is True
        assert 'rerankd_fallback{model="stand-in"} 1.0' in client.get("/metrics").text
        wait_until(lambda: len(tries) >= 2)
        body = RERANK.body(documents=["1", "2"])
        assert "stand-in" in client.post(RERANK.path, json=body).headers["x-rerankd-warning"]

        stand_in.gate.clear()  # a call that runs when the model comes ends where it began
        last, replies = RERANK.body(documents=["7"]), list[httpx2.Response]()
        running = threading.Thread(target=lambda: replies.append(client.post(RERANK.path, json=last)))
        stand_in.entered.clear()
        running.start()
        assert stand_in.entered.wait(60)
        reachable.set()
        wait_until(lambda: client.get("/health").json()["fallback"] is False)
        after = client.post(RERANK.path, json=body)
        assert after.headers["x-rerankd-model"] == "fake" and "x-rerankd-warning" not in after.headers
        stand_in.gate.set()
        running.join(60)
        assert replies[0].status_code == 200 and replies[0].headers["x-rerankd-model"] == "stand-in"
        assert 'rerankd_fallback{model="fake"} 0.0' in client.get("/metrics").text
        assert 'model="fake"' in client.get("/metrics").text
    assert "fake answers from now on, no longer stand-in" in caplog.text


def test_a_server_that_stops_does_not_wait_for_the_hub() -> None:
    served = Models(
        ServedModel(lambda progress: scorer_of(stand_in_model()), lambda: scorer_of(NumberedModel())), any_size=True
    )
    with serving_model(served):
        pass
    served.close()


def test_an_explicit_embedded_model_is_no_fallback(embedded_server: Server) -> None:
    assert httpx2.get(f"{embedded_server.url}/health").json()["fallback"] is False
