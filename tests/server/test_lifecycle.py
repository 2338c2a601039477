"""Loading, failing, full, hung up, shutting down: each request still gets its own answer, or is told when to come back.

Where a fault has to be made to happen, the server runs in this process around a fake model.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.engine.batching import Batches
from rerankd.engine.scorer import EngineScorer
from rerankd.errors import ModelError
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.types import LoadProgress
from support.fakes import NumberedModel, scorer_of
from support.raw import call, connected
from support.scrape import Scrape
from support.server import Server, StartServer
from support.serving import serving
from support.surfaces import ONE_EACH, RERANK, SHARED, Surface
from support.waiting import wait_until


def _numbered(surface: Surface, *numbers: float) -> Any:
    return surface.body(documents=[str(number) for number in numbers])


# Loading.


@pytest.mark.parametrize("surface", SHARED, ids=str)
def test_while_loading_every_dialect_says_when_to_come_back(surface: Surface) -> None:
    loaded = threading.Event()

    def start(progress: LoadProgress) -> EngineScorer:
        progress("loading the weights", 0.25)
        assert loaded.wait(60)
        return scorer_of(NumberedModel())

    with serving(start, wait=False) as client:
        health = client.get("/health")
        assert health.status_code == 503
        assert health.json() == {"status": "loading", "stage": "loading the weights", "progress": 0.25}
        assert int(health.headers["retry-after"]) >= 1
        models = client.get("/v1/models")
        assert models.status_code == 503 and "loading" in models.json()["error"]["message"]
        assert client.get("/version").status_code == 200
        told = surface.error(client.post(surface.path, json=surface.body()), 503)
        assert "loading the weights" in told and "25%" in told
        surface.error(client.post(surface.path, content=b"{"), 400)  # a bad request stays one
        loaded.set()
        wait_until(lambda: client.get("/health").status_code == 200)
        assert client.get("/health").json()["status"] == "ok"
        assert len(surface.scores(client.post(surface.path, json=_numbered(surface, 1, 2)))) == 2


def test_an_engine_that_cannot_go_on_fails_health_and_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[int]:
        raise SystemExit("injected")

    monkeypatch.setattr(Batches, "choose", broken)
    ended = threading.Event()
    served = Models(ServedModel(lambda progress: scorer_of(NumberedModel())))
    app = create_app(ServerSettings(), served, on_failure=ended.set)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health").status_code == 200)
        statuses = [client.post(RERANK.path, json=_numbered(RERANK, number)).status_code for number in range(5)]
        assert statuses[:3] == [500] * 3 and statuses[4] == 503
        assert ended.wait(60)
        health = client.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "failed"})
        assert isinstance(served.failure, ModelError) and "SystemExit" in str(served.failure)


def test_nobody_is_sent_away_for_hours() -> None:
    """After a long download, the first per mille of the weights says nothing about the time that is left."""
    loaded = threading.Event()

    def start(progress: LoadProgress) -> EngineScorer:
        progress("loading the weights", 1e-6)
        assert loaded.wait(60)
        return scorer_of(NumberedModel())

    with serving(start, wait=False) as client:
        response = client.post(RERANK.path, json=RERANK.body())
        loaded.set()
    assert 1 <= int(response.headers["retry-after"]) <= 300


@pytest.mark.parametrize("fault", ["no such folder", "no checkpoint in it", "random weights", "not a Qwen3"])
def test_a_model_that_cannot_be_served_ends_the_process(fault: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if fault == "random weights":
        folder = tiny_checkpoint  # ranks at random, so it fails the known-answer check
    elif fault != "no such folder":
        folder.mkdir()
        if fault == "not a Qwen3":
            (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", "--model", str(folder), "--dtype", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    reasons = [line for line in done.stderr.splitlines() if line.startswith("rerankd serve: ")]
    assert len(reasons) == 1 and done.stderr.endswith(f"{reasons[0]}\n")
    assert ("known-answer check" if fault == "random weights" else folder.name) in reasons[0]


def test_a_port_in_use_is_told(embedded_server: Server) -> None:
    port = str(httpx2.URL(embedded_server.url).port)
    command = [sys.executable, "-m", "rerankd", "serve", "--port", port, "--model", "embedded"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode not in (0, -6, -11)
    assert "is taken" in done.stderr and "Traceback" not in done.stderr


# Full, failing, hung up.


def test_a_full_queue_refuses_and_keeps_answering() -> None:
    model = NumberedModel()
    model.gate.clear()
    with serving(lambda progress: scorer_of(model, max_queue=1)) as client, ThreadPoolExecutor() as pool:
        accepted = pool.submit(client.post, RERANK.path, json=_numbered(RERANK, 1, 2))
        assert model.entered.wait(60)
        for surface in SHARED:
            refused = client.post(surface.path, json=_numbered(surface, 5))
            assert "queue is full" in surface.error(refused, 503)
        assert client.get("/health").status_code == 200
        model.gate.set()
        assert [index for index, _ in RERANK.scores(accepted.result(60))] == [1, 0]
        assert len(RERANK.scores(client.post(RERANK.path, json=_numbered(RERANK, 6)))) == 1
    assert model.seen == ["1", "2", "6"]


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
@pytest.mark.parametrize("fault", ["raises", "nan"])
def test_a_model_that_fails_spoils_one_request_only(surface: Surface, fault: str) -> None:
    def break_on_13(document: str) -> None:
        if document == "13":
            raise RuntimeError("CUDA error at /secret/path")

    number = "13" if fault == "raises" else "nan"
    with serving(lambda progress: scorer_of(NumberedModel(break_on_13))) as client, ThreadPoolExecutor() as pool:
        good = [pool.submit(client.post, surface.path, json=_numbered(surface, value, 2)) for value in range(6)]
        bad = client.post(surface.path, json=surface.body(documents=["1", number]))
        surface.error(bad, 500)
        assert "secret" not in bad.text and "CUDA" not in bad.text
        for future in good:
            assert len(surface.scores(future.result(60))) == 2


def test_a_caller_that_hangs_up_frees_its_work(caplog: pytest.LogCaptureFixture) -> None:
    model = NumberedModel()
    model.gate.clear()
    content = json.dumps(_numbered(RERANK, *range(50))).encode()
    with caplog.at_level(logging.INFO, "rerankd"), serving(lambda progress: scorer_of(model)) as client:
        with connected(str(client.base_url)) as raw:
            raw.sendall(call(body=content, path=RERANK.path))
            assert model.entered.wait(60)
        wait_until(lambda: "error=ClientDisconnect status=499" in caplog.text)
        model.gate.set()
        assert len(RERANK.scores(client.post(RERANK.path, json=_numbered(RERANK, 99)))) == 1
    assert model.seen == ["0", "99"]  # 1 to 49 were never computed


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_a_body_that_stops_in_the_middle(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps(_numbered(surface, 1, 2)).encode()

    def sent_slowly(pause_s: float) -> Iterator[bytes]:
        yield content[:10]
        time.sleep(pause_s)
        yield content[10:]

    with serving(lambda progress: scorer_of(NumberedModel())) as client:
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        in_time = client.post(surface.path, content=sent_slowly(0.01), headers=headers)
        assert len(surface.scores(in_time)) == 2
        monkeypatch.setattr("rerankd.server.body.WINDOW_S", 0.5)
        too_late = client.post(surface.path, content=sent_slowly(1), headers=headers)
        assert "after 10 bytes" in surface.error(too_late, 408)


# Shutting down.


@pytest.mark.slow
def test_sigterm_answers_what_has_come_and_then_ends(start_server: StartServer, tiny_checkpoint: Path) -> None:
    options = ("--model", str(tiny_checkpoint), "--device", "cpu", "--dtype", "float32", "--skip-self-test")
    server = start_server(*options)
    documents = [f"{number}" + " the" * 1000 for number in range(20)]
    sent = threading.Semaphore(0)

    def trace(event: str, _: Any) -> None:
        if event == "http11.send_request_body.complete":
            sent.release()

    limits = httpx2.Limits(max_connections=None)
    with (
        httpx2.Client(base_url=server.url, timeout=120, limits=limits) as client,
        ThreadPoolExecutor(len(SHARED)) as pool,
    ):
        answers = {
            surface: pool.submit(
                client.post, surface.path, json=surface.body(documents=documents), extensions={"trace": trace}
            )
            for surface in SHARED
        }
        assert all(sent.acquire(timeout=60) for _ in answers)
        server.wait_until(lambda: _num_known(server.url) == len(answers))
        assert not all(answer.done() for answer in answers.values()), "too fast to prove anything"
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _is_closed(server.url))
        for surface, answer in answers.items():
            assert len(surface.scores(answer.result(120))) == 20
    assert server.ended() == 0
    assert "Traceback" not in "".join(server.log)


def _num_known(url: str) -> int:
    """Calls that the engine has, and those that are answered."""
    scrape = Scrape(url)
    return int(sum(scrape.get(f"rerankd_requests_{state}") for state in ("running", "waiting", "total")))


def _is_closed(url: str) -> bool:
    try:
        httpx2.get(f"{url}/health")
    except httpx2.ConnectError:
        return True
    except httpx2.TransportError:  # it was accepted just before
        pass
    return False


def test_sigterm_while_loading_ends_at_once(start_server: StartServer, tiny_checkpoint: Path) -> None:
    server = start_server("--model", str(tiny_checkpoint), wait=False)
    assert server.end() == 0
    assert "Traceback" not in "".join(server.log)


def test_idle_connections_do_not_hold_up_the_end(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--drain-s", "3600")
    with httpx2.Client() as client, connected(server.url):
        client.get(f"{server.url}/health")
        assert server.end() == 0


def test_a_drain_delay_tells_balancers_first_and_still_answers(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--drain-delay-s", "300")
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: httpx2.get(f"{server.url}/health").status_code == 503)
    assert httpx2.get(f"{server.url}/health").json() == {"status": "stopping"}
    assert httpx2.get(f"{server.url}/livez").status_code == 200
    assert httpx2.post(server.url + RERANK.path, json=RERANK.body()).status_code == 200
    assert server.end(signal.SIGINT) in (0, 130, -signal.SIGINT)  # as Ctrl-C: at once


def test_the_log_says_when_a_server_starts_and_stops(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", key="sesame")
    server.end()
    log = "".join(server.log)
    assert "starts: model embedded" in log and "one key" in log and "Stopping: running calls (0 now)" in log
    assert "Stopped\n" in log
    assert "sesame" not in log


def test_livez_answers_while_the_model_loads() -> None:
    hold = threading.Event()

    def load(progress: LoadProgress) -> EngineScorer:
        hold.wait(60)
        return scorer_of(NumberedModel())

    with serving(load, wait=False) as client:
        assert client.get("/livez").text == "ok" and client.get("/health").status_code == 503
        hold.set()


def test_a_folder_that_is_not_there_is_told_before_the_server_listens(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", "--model", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "There is no folder" in ended.stderr and "Listening" not in ended.stderr


# Together.


def test_each_of_many_callers_gets_their_own_answer(qwen_server: Server) -> None:
    """Alone or in a batch with others, of other lengths and dialects: the same scores."""
    topics = ["rivers", "bread", "gravity", "the capital of China", "a red planet", "tax law", "chess", "sleep"]
    calls = [
        (
            surface,
            surface.body(
                f"What is said about {topic}?",
                [f"{topic} " * (1 + (place * 7) % 40), f"Nothing about {topic}.", f"Number {place}", topic],
                instruct=f"Find texts on {topic}",
            ),
        )
        for place, (topic, surface) in enumerate((topic, surface) for topic in topics for surface in SHARED)
    ]
    headers = {"authorization": f"Bearer {qwen_server.key}"}
    with httpx2.Client(base_url=qwen_server.url, headers=headers, timeout=60) as client:
        alone = [dict(surface.scores(client.post(surface.path, json=body))) for surface, body in calls]
        with ThreadPoolExecutor(32) as pool:
            answers = [pool.submit(client.post, surface.path, json=body) for surface, body in calls * 3]
            together = [
                dict(surface.scores(answer.result(60))) for answer, (surface, _) in zip(answers, calls * 3, strict=True)
            ]
    for expected, scores in zip(alone * 3, together, strict=True):
        assert scores == pytest.approx(expected, abs=1e-4)
    distinct = {tuple(round(score, 4) for _, score in sorted(scores.items())) for scores in alone}
    assert len(distinct) > len(topics)  # a mix-up would show
    assert all(math.isfinite(score) for scores in together for score in scores.values())
