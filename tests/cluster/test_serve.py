"""`rerankd serve --replicas` on a real Ray: the same scores, and no call is lost when a replica or the server ends."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.processes import children_of, title_of
from support.server import Server, StartServer

pytest.importorskip("ray")

WORDS = "the old bridge over a river in a small town is repaired by engineers who came from far away".split()


def options(checkpoint: Path, replicas: int) -> Sequence[str]:
    model = ("--model", str(checkpoint), "--dtype", "float32", "--skip-self-test", "--deterministic")
    return (*model, "--replicas", str(replicas), "--replica-cpus", "1", "--score-cache-mb", "0", "--drain-delay-s", "2")


def body(number: int) -> dict[str, Any]:
    documents = [" ".join(WORDS[(number + i * j) % len(WORDS)] for j in range(5 + 3 * i)) for i in range(20)]
    return {"query": f"Which bridge? {number}", "documents": documents}


def replicas_of(server: Server) -> list[int]:
    return [pid for pid in children_of(server.process.pid) if "ServeReplica:rerankd" in title_of(pid)]


def metric(server: Server, name: str) -> float:
    [value] = re.findall(rf"^{name}{{.*}} (\S+)$", httpx2.get(f"{server.url}/metrics").text, re.MULTILINE)
    return float(value)


def test_r2_killed_replicas_cost_no_call_and_come_back(
    start_server: StartServer, tiny_checkpoint: Path, qwen_server: Server
) -> None:
    server = start_server(*options(tiny_checkpoint, 2), key="test-key")
    first = replicas_of(server)
    assert len(first) == 2
    expected, found = (one.post("/v1/rerank", body(0)).json()["results"] for one in (qwen_server, server))
    assert [one["index"] for one in found] == [one["index"] for one in expected]
    scores = [one["relevance_score"] for one in expected]
    assert [one["relevance_score"] for one in found] == pytest.approx(scores, abs=1e-4)

    done = threading.Semaphore(0)

    def ask(number: int) -> Any:
        answer = server.post("/v1/rerank", body(number))
        done.release()
        return answer.status_code, len(answer.json()["results"])

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, number) for number in range(200)]
        for _ in range(40):
            done.acquire()
        os.kill(first[0], signal.SIGKILL)
        assert [one.result(120) for one in asking] == [(200, 20)] * 200
    server.wait_until(lambda: len(set(replicas_of(server)) - {first[0]}) == 2)
    server.wait_until(lambda: metric(server, "rerankd_replicas") == 2)
    assert metric(server, "rerankd_lost_parts_total") <= 8, "at most what the killed one had: a part of each call"
    below = children_of(server.process.pid)
    with ThreadPoolExecutor(20) as pool:  # R7: SIGTERM under load
        asking = [pool.submit(ask, number) for number in range(20)]
        done.acquire()
        server.process.send_signal(signal.SIGTERM)
        answers = [one.result(120) for one in asking]
    assert all(answer == (200, 20) for answer in answers)
    assert server.process.wait(60) in (0, -signal.SIGTERM)
    assert [title_of(pid) for pid in below if title_of(pid)] == []
