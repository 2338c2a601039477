"""Probes, the two steps of a stop, logs in JSON, and `rerankd health`, as orchestrators use them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from rerankd.engine.scorer import EngineScorer
from rerankd.server import status
from rerankd.types import LoadProgress
from support.fakes import NumberedModel, scorer_of
from support.server import Server, StartServer
from support.serving import serving
from support.surfaces import RERANK
from support.waiting import wait_until


def health(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rerankd", "health", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def test_d6_variables_of_kubernetes_services_are_no_settings(start_server: StartServer) -> None:
    links = {"RERANKD_PORT": "tcp://10.0.12.7:8000", "RERANKD_WORKER_SERVICE_HOST": "10.0.12.8"}
    server = start_server("--model", "embedded", env=links)
    assert any("Ignored, since they are links to a service: RERANKD_PORT" in line for line in server.log)


def test_d7_a_stop_under_load_loses_no_call(start_server: StartServer) -> None:
    """Callers with a connection for each call, which begin before the signal and go on behind it."""
    server = start_server("--model", "embedded", "--drain-delay-s", "300")
    client = httpx2.Client(base_url=server.url, limits=httpx2.Limits(max_keepalive_connections=0), timeout=60)
    answered_one, stop = threading.Semaphore(0), threading.Event()

    def call(number: int) -> list[int]:
        statuses: list[int] = []
        while not stop.is_set():
            body = RERANK.body(documents=[f"document {number} {len(statuses)} {part}" for part in range(5)])
            statuses.append(client.post(RERANK.path, json=body).status_code)
            answered_one.release()
        return statuses

    with client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(call, number) for number in range(8)]
        for _ in range(180):
            assert answered_one.acquire(timeout=60)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: client.get("/readyz").status_code == 503)
        for _ in range(20):  # most of them begun after the signal
            assert answered_one.acquire(timeout=60)
        assert client.get("/startupz").status_code == 200
        stop.set()
        answered = [code for one in calls for code in one.result(60)]
    assert len(answered) >= 200 and set(answered) == {200}
    server.end(signal.SIGINT)  # at once


@pytest.mark.database
def test_d8_two_servers_that_start_at_once_make_one_schema(
    start_server: StartServer, new_postgres: Callable[[], str]
) -> None:
    options = ("--model", "embedded", "--accounts", "--database", new_postgres())
    servers = [start_server(*options, wait=False) for _ in range(2)]
    for server in servers:
        server.wait_until(lambda server=server: any("Ready:" in line for line in server.log))  # type: ignore[misc]
        assert not any("ERROR" in line for line in server.log)


def test_calls_have_a_set_time_to_finish_after_a_stop(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--drain-s", "7", "--drain-delay-s", "1")
    assert server.end() == 0
    assert any("have 7 s to finish; new ones are accepted for 1 s more" in line for line in server.log)


def test_d9_livez_fails_only_when_an_engine_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, entered, release = threading.Event(), threading.Event(), threading.Event()

    def hold(_: str) -> None:
        entered.set()
        assert release.wait(60)

    def load(progress: LoadProgress) -> EngineScorer:
        assert loaded.wait(60)
        return scorer_of(NumberedModel(hold))

    with serving(load, wait=False) as client, ThreadPoolExecutor(1) as pool:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == client.get("/startupz").status_code == 503
        loaded.set()
        wait_until(lambda: client.get("/startupz").status_code == 200)
        assert client.get("/readyz").json()["status"] == "ok"
        call = pool.submit(client.post, RERANK.path, json=RERANK.body(documents=["1", "2"]))
        assert entered.wait(60)
        assert client.get("/livez").status_code == 200, "a batch may take its time"
        monkeypatch.setattr(status, "STUCK_S", 0)
        stuck = client.get("/livez")
        assert stuck.status_code == 503 and "one batch has run for" in stuck.text
        release.set()
        assert call.result(60).status_code == 200
        wait_until(lambda: client.get("/livez").status_code == 200)


def test_the_log_can_be_json(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", "--log-format", "json")
    httpx2.post(f"{server.url}/v1/rerank", json=RERANK.body(), headers={"x-request-id": 'req "1"'}, timeout=60)
    server.wait_until(lambda: any('"status"' in line for line in server.log))
    lines = [json.loads(line) for line in server.log]
    [call] = [line for line in lines if "status" in line]
    assert datetime.fromisoformat(call.pop("time")).tzinfo is not None
    assert call.pop("seconds") >= 0 and call.pop("tokens") > 0 and call.pop("id")
    assert call == {
        "level": "info",
        "logger": "rerankd.server.access_log",
        "method": "POST",
        "path": "/v1/rerank",
        "dialect": "vllm-rerank",
        "model": "embedded-multilingual",
        "documents": len(RERANK.body()["documents"]),
        "warnings": 0,
        "status": 200,
        "client": "127.0.0.1",
    }
    assert any("Ready:" in line.get("message", "") for line in lines)


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server("--model", "embedded", key="sesame")


def test_health_needs_neither_curl_nor_a_key(server: Server) -> None:
    by_url = health("--url", server.url)
    assert by_url.returncode == 0 and json.loads(by_url.stdout)["status"] == "ok"
    by_settings = health(RERANKD_HOST="0.0.0.0", RERANKD_PORT=server.url.rpartition(":")[2], RERANKD_NO_AUTH="1")
    assert by_settings.returncode == 0, by_settings.stderr


def test_health_reads_a_socket(start_server: StartServer, tmp_path: Path) -> None:
    socket = tmp_path / "rerankd.sock"
    started = start_server("--model", "embedded", "--uds", str(socket), wait=False)
    started.wait_until(lambda: any("Ready:" in line for line in started.log))
    assert health(RERANKD_UDS=str(socket)).returncode == 0


def test_health_of_a_server_that_is_not_there_is_one_line() -> None:
    ended = health("--url", "http://127.0.0.1:9")
    assert ended.returncode == 1
    assert ended.stderr == "rerankd health: http://127.0.0.1:9 does not answer (Connection refused).\n"


def test_workers_of_other_servers_are_refused_with_the_way_out() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "rerankd", "serve", "--workers", "4"], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 and "--workers is not offered" in ended.stderr and "balancer" in ended.stderr
