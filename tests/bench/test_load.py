"""`rerankd bench --url`: real servers under load, and one that only records what it is asked."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rerankd.bench import load
from rerankd.bench.load import Load, measure
from rerankd.bench.load_client import LoadClient
from rerankd.bench.percentile import percentile
from rerankd.cli.main import main
from support.server import Server, StartServer

Bench = Callable[..., dict[str, Any]]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Bench:
    """Runs `rerankd bench --url … --json` and returns what it prints."""

    def run(server: Server | Recorder, *options: str) -> dict[str, Any]:
        status = main(["bench", "--url", server.url, "--api-key", server.key, "--unloaded", "2", "--json", *options])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return dict(json.loads(printed.out))

    return run


@dataclass
class Recorder:
    """A server that answers one request at a time, after `delay_s`, with scores of 0, and keeps the bodies."""

    url: str = ""
    key: str = "none"
    delay_s: float = 0.0
    with_usage: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.turn:
            self.bodies.append(body)
            time.sleep(self.delay_s)
        usage = {"usage": {"total_tokens": 1}} if self.with_usage else {}
        return {"model": "none", "results": [{"index": 0, "relevance_score": 0.0} for _ in body["documents"]], **usage}


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)  # no /health

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply = json.dumps(recorder.answer(body)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    class Listener(ThreadingHTTPServer):
        request_queue_size = 128

    with Listener(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        recorder.url = f"http://127.0.0.1:{listener.server_address[1]}"
        yield recorder
        listener.shutdown()


def test_a_closed_loop_counts_what_the_server_counts(qwen_server: Server, bench: Bench) -> None:
    result = bench(qwen_server, *("--mix", "short=3", "C=1", "--requests", "8", "--concurrency", "3", "--seed", "5"))
    assert result["rate"] is None and result["capacity"] is None and result["memory"] is None
    assert result["load"]["seed"] == 5 and result["load"]["mix"] == {"short": 3, "C": 1}
    short, many = result["workloads"]
    assert (short["workload"], short["requests"], short["documents"]) == ("short", 6, 5)
    assert (many["workload"], many["requests"], many["documents"]) == ("C", 2, 100)
    for row in (short, many):
        assert row["errors"] == {}
        assert 0 < row["loaded"]["p50_s"] <= row["loaded"]["p95_s"] <= row["loaded"]["p99_s"]
        assert 0 < row["unloaded"]["p50_s"] <= row["unloaded"]["p95_s"]
        assert row["p95_ratio"] == pytest.approx(row["loaded"]["p95_s"] / row["unloaded"]["p95_s"])
        assert row["documents_per_s"] == pytest.approx(row["documents"] * row["requests"] / result["elapsed_s"])
        assert row["tokens_per_s"] == pytest.approx(row["tokens"] * row["requests"] / result["elapsed_s"])
    # 77 + 9 tokens of query and template around each document of 30 ± 9, 100 of them: the mean is within 3.
    assert many["tokens"] == pytest.approx(100 * (77 + 30 + 9), abs=300)
    assert result["requests_per_s"] == pytest.approx(8 / result["elapsed_s"])


def test_an_open_loop_sends_at_its_rate(embedded_server: Server, bench: Bench) -> None:
    result = bench(embedded_server, "--mix", "short", "--rate", "20", "--requests", "12")
    assert result["rate"] == 20.0
    assert result["model"] == "embedded-multilingual"
    assert result["workloads"][0]["requests"] == 12
    assert result["workloads"][0]["errors"] == {}


def test_a_duration_ends_both_loops(embedded_server: Server, bench: Bench) -> None:
    for options in (["--rate", "20"], ["--concurrency", "2"]):
        result = bench(embedded_server, "--mix", "short", "--duration", "1", *options)
        assert result["workloads"][0]["requests"] > 1
        assert result["workloads"][0]["errors"] == {}
        assert result["elapsed_s"] > 0.5


def test_a_share_of_the_capacity(embedded_server: Server, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "CAPACITY_S", 1.0)
    result = bench(embedded_server, *("--mix", "short=4", "--load", "0.5", "--concurrency", "2", "--requests", "4"))
    capacity = result["capacity"]
    assert capacity["elapsed_s"] >= 1.0
    assert capacity["requests"] % 4 == 0  # whole decks
    assert capacity["requests_per_s"] == pytest.approx(capacity["requests"] / capacity["elapsed_s"])
    assert result["rate"] == pytest.approx(0.5 * capacity["requests_per_s"])


def test_refusals_are_counted_and_a_loading_server_is_waited_for(
    start_server: StartServer, tiny_checkpoint: Path, bench: Bench
) -> None:
    model = ("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")
    server = start_server(*model, "--max-queue", "1", key="key", wait=False)
    result = bench(server, "--mix", "C", "--concurrency", "6", "--requests", "12")
    [row] = result["workloads"]
    assert row["requests"] == 12
    assert set(row["errors"]) == {"503"}
    assert 1 <= row["errors"]["503"] < 12
    answered = 12 - row["errors"]["503"]
    assert row["documents_per_s"] == pytest.approx(100 * answered / result["elapsed_s"])


def test_a_server_that_dies_is_counted_not_raised(start_server: StartServer, tiny_checkpoint: Path) -> None:
    server = start_server("--model", str(tiny_checkpoint), "--dtype", "float32", "--skip-self-test")

    def kill(stage: str, share: float) -> None:
        if stage == "under load":
            server.process.kill()

    async def run() -> load.LoadResult:
        pid = server.process.pid if sys.platform == "linux" else None
        async with LoadClient(server.url, None, timeout_s=60) as client:
            return await measure(client, Load({"C": 1}, 0, 2, None, None, 6, 60, 1, pid), kill)

    result = asyncio.run(run())
    [row] = result.workloads
    assert row.requests == 6
    assert sum(row.errors.values()) >= 4  # one was answered, one may have been on its way
    assert all(name.endswith("Error") for name in row.errors)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_servers_memory(embedded_server: Server, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    pid = str(embedded_server.process.pid)
    memory = bench(embedded_server, "--mix", "short", "--requests", "12", "--pid", pid)["memory"]
    assert len(memory["tenths_gb"]) == 10
    assert all(0.05 < value <= memory["peak_gb"] for value in (memory["start_gb"], memory["end_gb"]))
    assert main(["bench", "--url", embedded_server.url, "--pid", "999999999"]) == 1
    assert "process 999999999 cannot be read" in capsys.readouterr().err


def test_the_table(embedded_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--mix", "short", "--requests", "3", "--concurrency", "2", "--unloaded", "1", "--seed", "77"]
    key = ["--api-key", embedded_server.key]
    assert main(["bench", "--url", embedded_server.url + "/v1", *key, *arguments]) == 0
    shown = capsys.readouterr().out
    assert "p95 ratio" in shown.splitlines()[0]
    assert shown.splitlines()[1].split()[:3] == ["short", "3", "0"]
    assert "closed loop, 2 clients" in shown and "scored by embedded-multilingual; seed 77" in shown


def test_every_request_is_different_and_a_seed_repeats_them(recorder: Recorder, bench: Bench) -> None:
    sent = []
    for seed in ("1", "1", "2"):
        recorder.bodies.clear()
        bench(recorder, *("--mix", "short=4", "C=1", "--requests", "20", "--concurrency", "1", "--seed", seed))
        sent.append([json.dumps(body) for body in recorder.bodies])
    assert sent[0] == sent[1]
    assert not set(sent[0]) & set(sent[2])
    assert len(set(sent[0])) == len(sent[0]) == 2 * (1 + 2) + 20
    sizes = [len(json.loads(body)["documents"]) for body in sent[0][6:]]
    assert [sorted(sizes[deck : deck + 5]) for deck in range(0, 20, 5)] == [[5, 5, 5, 5, 100]] * 4


def test_an_open_loop_does_not_wait_for_a_slow_server(recorder: Recorder, bench: Bench) -> None:
    recorder.delay_s = 0.05
    [row] = bench(recorder, "--mix", "short", "--rate", "1000", "--requests", "20")["workloads"]
    # All arrive at once and are answered one by one: the 19th waits for those before it, 19 × 0.05 s less the arrivals.
    assert row["loaded"]["p95_s"] > 0.5


def test_a_latency_counts_from_the_planned_arrival(recorder: Recorder) -> None:
    stalls = iter([1.0])

    def stall(stage: str, share: float) -> None:
        if stage == "under load":
            time.sleep(next(stalls, 0))  # this client, after the first answer: the next request leaves late

    async def run() -> load.LoadResult:
        async with LoadClient(recorder.url, None, timeout_s=60) as client:
            return await measure(client, Load({"short": 1}, 0, 1, 20.0, None, 10, 60, 1, None), stall)

    latest = asyncio.run(run()).workloads[0].loaded.p99_s
    assert latest is not None and latest > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9 cannot be reached"),
        (["--url", "http://[broken"], "cannot be reached"),
        (["--url", "http://127.0.0.1:9", "--dtype", "float32"], "--dtype does not go with --url"),
        (["--url", "http://127.0.0.1:9", "--rate", "1", "--concurrency", "2"], "with --rate there is none"),
        (["--random-weights", "0.6B", "--rate", "1"], "--rate needs --url"),
    ],
)
def test_what_cannot_be_measured_is_said(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 1
    assert message in capsys.readouterr().err


def test_a_server_that_never_answers_is_not_measured(
    embedded_server: Server, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--url", embedded_server.url, "--api-key", "wrong"]) == 1
    assert "does not answer workload A: 401: The API key is not valid." in capsys.readouterr().err
    recorder.with_usage = False
    assert main(["bench", "--url", recorder.url]) == 1
    assert "not a ranking" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--mix", "short=0.9"], ["--mix", "D"], ["--rate", "0"], ["--requests", "none"]])
def test_options_are_checked(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", "http://127.0.0.1:9", *option]) == 2
    assert option[1].removeprefix("short=") in capsys.readouterr().err


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([3.0], 0.5) == percentile([3.0], 0.99) == 3.0
