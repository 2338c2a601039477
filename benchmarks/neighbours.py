"""What one caller can do to another: small calls of one account beside an attack by a second, one row an attack.

    python benchmarks/neighbours.py --model ./random-0.6B --seconds 15

For each attack a server of its own, with accounts: the P95 of small calls, one every 0.2 s, unloaded and under attack;
calls that failed; the server's peak memory; how long it took to end after SIGTERM in the middle of the attack; and
how the attack's own calls were answered, which shows a row whose attack never reached the server's work. The attacker
and the client stand for other machines: the client goes before the server (where it may, as root) and the attacker
behind it. Sends only to this machine, and every attack ends by itself.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from rerankd.accounts.store import open_store

EVERY_S = 0.2
CLIENT_PRIORITY = -15
DIGITS = "0123456789"


@dataclass(frozen=True)
class Target:
    """Where an attack goes, with which key, and when it ends (time.monotonic)."""

    port: int
    key: str
    until: float
    answered: Any  # a queue: the status of each reply to `post`

    def running(self) -> bool:
        return time.monotonic() < self.until

    def post(self, path: str, body: Any) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        with suppress(httpx2.HTTPError):
            left = max(1.0, self.until - time.monotonic())
            url = f"http://127.0.0.1:{self.port}{path}"
            self.answered.put(httpx2.post(url, content=content, headers=headers, timeout=left).status_code)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5)

    def head(self, path: str, length: int, *more: str) -> bytes:
        lines = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.key}", *more)
        return "\r\n".join((*lines, "Content-Type: application/json", f"Content-Length: {length}", "", "")).encode()


def repeated(path: str, body: Any, at_once: int = 1) -> Callable[[Target], None]:
    """An attack: the same call again and again."""

    def attack(target: Target) -> None:
        content = json.dumps(body).encode() if not isinstance(body, bytes) else body

        def again(_: int) -> None:
            while target.running():
                target.post(path, content)

        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(again, range(at_once)))

    return attack


def idle_connections(target: Target) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    held = []
    for _ in range(1100):
        with suppress(OSError):
            held.append(target.connect())
    while target.running():
        time.sleep(0.2)


def websocket_upgrades(target: Target) -> None:
    held = []
    for _ in range(50):
        with suppress(OSError):
            connection = target.connect()
            head = target.head("/v1/rerank", 3, "Connection: Upgrade", "Upgrade: websocket")
            connection.sendall(head + b"abc")
            held.append(connection)
    while target.running():
        time.sleep(0.2)


def unread_replies(target: Target) -> None:
    body = json.dumps({"query": "q", "documents": ["same"] * 10_000, "explain": True}).encode()
    held = []
    for _ in range(10):
        with suppress(OSError):
            connection = target.connect()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(target.head("/v1/rerank", len(body)) + body)
            held.append(connection)
    while target.running():
        time.sleep(0.2)


def slow_bodies(target: Target) -> None:
    def hold(_: int) -> None:
        with suppress(OSError), target.connect() as connection:
            connection.sendall(
                target.head("/v1/rerank", 60_000_000) + b'{"query":"q","documents":["' + b"x" * 59_000_000
            )
            while target.running():
                connection.sendall(b"x")
                time.sleep(min(20, max(0.1, target.until - time.monotonic())))

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(hold, range(10)))


NATIVE = "/api/v1/services/rerank/text-rerank/text-rerank"
LONG = "many different words follow one another here and "


def of_words(count: int) -> str:
    return (LONG * (count // 8 + 1))[: len(LONG) * count // 8]


ATTACKS: dict[str, Callable[[Target], None]] = {
    "instruct of 7,500 tokens": repeated(
        NATIVE,
        {
            "model": "qwen3-rerank",
            "input": {"query": "q", "documents": ["d"]},
            "parameters": {"instruct": of_words(7500)},
        },
    ),
    "query of 7,500 tokens": repeated("/v1/rerank", {"query": of_words(7500), "documents": ["d"]}),
    "document of 30,000 tokens": repeated("/v1/rerank", {"query": "q", "documents": [of_words(30_000)]}),
    "10 MB of digits to /tokenize": repeated("/tokenize", {"prompt": DIGITS * 1_000_000}, 2),
    "4 queries of 1 MB of digits": repeated(
        "/v1/score",
        {"text_1": [DIGITS * 100_000] * 4, "text_2": ["a"] * 4, "truncate_prompt_tokens": -1},
    ),
    "16 MB of empty lists": repeated(
        "/v1/rerank", b'{"query":"q","documents":["d"],"x":[' + b"[]," * 5_000_000 + b"[]]}"
    ),
    "100,000 rank_fields": repeated(
        "/v1/rerank", {"query": "q", "documents": [{"a": "x" * 1000}] * 600, "rank_fields": ["a"] * 100_000}
    ),
    "4 MB under max_tokens_per_doc 1e9": repeated(
        "/cohere/v2/rerank",
        {"model": "qwen3-rerank", "query": "q", "documents": [DIGITS * 400_000], "max_tokens_per_doc": 10**9},
    ),
    "priority -1 from 3 callers": repeated(
        "/v1/rerank", {"query": "q", "documents": [f"{LONG} {place}" for place in range(200)], "priority": -1}, 3
    ),
    "12 at once, refused when tokenised": repeated("/v1/rerank", {"query": "q", "documents": [DIGITS * 860_000]}, 12),
    "100,000 documents": repeated("/v1/rerank", {"query": "q", "documents": ["same"] * 100_000}, 4),
    "1,100 idle connections": idle_connections,
    "50 websocket upgrades": websocket_upgrades,
    "10 unread replies": unread_replies,
    "10 bodies of 60 MB that stop": slow_bodies,
}


def as_a_server() -> None:
    """Of a started process: its usual priority, and a bound of open files that an attack can reach."""
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@contextmanager
def serving(options: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and its port, once it answers; its log goes to a pipe that is emptied."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=as_a_server) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            port = next(
                int(found[1]) for line in lines if (found := re.search(r"Listening on http://\S+?:(\d+)", line))
            )
            next(line for line in lines if "Ready:" in line)
            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            yield process, port
        finally:
            process.kill()


class SmallCalls:
    """One call of one short new document every 0.2 s, each on a thread of its own, whatever became of the last."""

    serial = itertools.count()

    def __init__(self, port: int, key: str) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=4)
        self._client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, timeout=120, limits=limits
        )

    def run(self, seconds: float) -> list[float]:
        """Seconds of each call; infinite where it failed."""
        with ThreadPoolExecutor(200) as pool:
            begun = time.monotonic()
            waiting = []
            for place in range(int(seconds / EVERY_S)):
                time.sleep(max(0.0, begun + place * EVERY_S - time.monotonic()))
                waiting.append(pool.submit(self._call))
            return [one.result() for one in waiting]

    def _call(self) -> float:
        started = time.monotonic()
        body = {"query": "which planet is red", "documents": [f"planet number {next(self.serial)} is red"]}
        try:
            self._client.post("/v1/rerank", json=body).raise_for_status()
        except httpx2.HTTPError:
            return float("inf")
        return time.monotonic() - started


def p95(times: list[float]) -> float:
    return sorted(times)[int(0.95 * (len(times) - 1) + 0.5)]


def peak_mb(pid: int) -> float:
    """Of the process since its start."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else float("nan")  # it died


def attack_behind(name: str, target: Target) -> None:
    """An attack with the lowest right to this machine's cores, as if it came from another machine."""
    os.nice(40)
    ATTACKS[name](target)


def measure(name: str, options: list[str], keys: tuple[str, str], seconds: float) -> str:
    """A row of the table."""
    with serving(options) as (process, port):
        calls = SmallCalls(port, keys[0])
        calls.run(2)
        alone, before_mb = calls.run(6), peak_mb(process.pid)
        fork = multiprocessing.get_context("fork")
        target = Target(port, keys[1], time.monotonic() + seconds + 10, fork.SimpleQueue())
        attacker = fork.Process(target=attack_behind, args=(name, target), daemon=True)
        attacker.start()
        time.sleep(1)
        beside, after_mb = calls.run(seconds), peak_mb(process.pid)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        with suppress(subprocess.TimeoutExpired):
            process.wait(130)
        ended = f"{time.monotonic() - began:.1f} s, status {process.poll()}"
        attacker.kill()
    statuses = Counter[int]()
    while not target.answered.empty():
        statuses[target.answered.get()] += 1
    failed = sum(one == float("inf") for one in beside)
    figures = f"{1000 * p95(alone):7.0f} {1000 * p95(beside):7.0f} {p95(beside) / p95(alone):5.1f} {failed:3d}"
    said = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())) or "-"
    median = f"median {1000 * statistics.median(beside):.0f}"
    return f"{name:36} {figures}  {before_mb:6.0f} {after_mb:6.0f}  {ended}  {median}  attack: {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seconds", type=float, default=15, help="of each attack (default: 15)")
    parser.add_argument(
        "--only", nargs="*", default=list(ATTACKS), metavar="ATTACK", help="those whose names have this"
    )
    parser.add_argument("--options", default="", help="more options for rerankd serve")
    asked = parser.parse_args()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, CLIENT_PRIORITY)
    print(f"{'':36}   alone  beside ratio fail  MB before peak  end after SIGTERM   (P95 in ms)", flush=True)
    for name in ATTACKS:
        if not any(part in name for part in asked.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            database = f"sqlite:///{Path(folder) / 'accounts.db'}"
            store = open_store(database)
            keys = []
            for who in ("small", "attacker"):
                account = store.accounts.create(f"{who}@example.org")
                store.ledger.add_credits(account.id, 10**12)
                keys.append(store.keys.create(account.id, who)[1])
            store.database.close()
            options = ["--model", asked.model, "--skip-self-test", "--accounts", "--database", database]
            options += asked.options.split()
            print(measure(name, options, (keys[0], keys[1]), asked.seconds), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
