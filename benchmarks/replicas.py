"""The same open-loop load on 1 and 2 replicas, a core each: documents/s, P95, and recovery after a replica is killed.

    python benchmarks/replicas.py --model ./random-0.6B --replicas 1 2

A closed loop finds the capacity of each number of replicas; then calls arrive as a Poisson process at a share of it,
so that the queues are alike: documents/s then compare at like P95. `--same-rate` sends all numbers the load of the
first. `--kill` ends one replica in the middle of the load with SIGKILL, and prints the failed calls and the seconds
until the process of a new replica is there, which then loads the model.
Everything runs on this machine, with one thread for each replica, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from rerankd.bench.percentile import percentile

WORDS = "the old bridge over a river in a small town is repaired by engineers who came from far away".split()


@dataclass
class Run:
    """What one load gave. seconds: of each answered call, from its planned arrival."""

    documents_per_s: float
    seconds: list[float]
    failed: int


def body(rng: random.Random, documents: int, words: int) -> dict[str, object]:
    texts = [" ".join(rng.choices(WORDS, k=words)) for _ in range(documents)]
    return {"query": " ".join(rng.choices(WORDS, k=8)), "documents": texts}


class Server:
    """`rerankd serve` with so many replicas, on a free port."""

    def __init__(self, model: str, dtype: str, replicas: int) -> None:
        command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", "--model", model, "--dtype", dtype]
        command += ["--replicas", str(replicas), "--replica-cpus", "1", "--skip-self-test", "--score-cache-mb", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.url, self._ready = "", threading.Event()
        threading.Thread(target=self._follow, daemon=True).start()
        self._ready.wait()
        if self.process.poll() is not None:
            raise SystemExit("The server did not start.")

    def _follow(self) -> None:
        """Reads the log to its end: a full pipe would stop the server."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"Listening on (\S+)", line):
                self.url = found[1]
            if "Ready:" in line:
                self._ready.set()
        self._ready.set()

    def replicas(self) -> set[int]:
        """The processes of the replicas."""
        parents: dict[int, int] = {}
        named = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if b"ServeReplica:rerankd" in (folder / "cmdline").read_bytes():
                    named.add(int(folder.name))
            except OSError:
                continue  # it has ended
        return {pid for pid in named if self.process.pid in ancestors(pid, parents)}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(150)


def ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


async def ask(client: httpx2.AsyncClient, content: dict[str, object], begun: float, run: Run) -> None:
    try:
        answer = await client.post("/v1/rerank", json=content)
        if answer.status_code == 200:
            run.seconds.append(time.monotonic() - begun)
            return
    except httpx2.HTTPError:
        pass
    run.failed += 1


async def closed_loop(url: str, seconds: float, clients: int, documents: int, words: int) -> Run:
    """Clients that ask again at once: the capacity."""
    run, until = Run(0, [], 0), time.monotonic() + seconds
    async with httpx2.AsyncClient(base_url=url, timeout=120, limits=httpx2.Limits(max_connections=None)) as client:

        async def one(number: int) -> None:
            rng = random.Random(number)
            while time.monotonic() < until:
                await ask(client, body(rng, documents, words), time.monotonic(), run)

        began = time.monotonic()
        await asyncio.gather(*map(one, range(clients)))
        return Run(len(run.seconds) * documents / (time.monotonic() - began), run.seconds, run.failed)


async def open_loop(url: str, seconds: float, rate: float, documents: int, words: int) -> Run:
    """Calls that arrive whether or not the server keeps up. rate: calls a second."""
    rng, run = random.Random(7), Run(0, [], 0)
    async with httpx2.AsyncClient(base_url=url, timeout=120, limits=httpx2.Limits(max_connections=None)) as client:
        began = planned = time.monotonic()
        asking = []
        while planned < began + seconds:
            planned += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, planned - time.monotonic()))
            asking.append(asyncio.create_task(ask(client, body(rng, documents, words), planned, run)))
        await asyncio.gather(*asking)
        return Run(len(run.seconds) * documents / (time.monotonic() - began), run.seconds, run.failed)


async def kill_one(server: Server, after_s: float) -> float:
    """Seconds from SIGKILL of a replica until there are as many processes of replicas as before."""
    await asyncio.sleep(after_s)
    before = server.replicas()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    while len(server.replicas() - {killed}) < len(before):
        await asyncio.sleep(0.1)
    return time.monotonic() - began


async def measure(server: Server, given: argparse.Namespace, rate: float | None) -> tuple[Run, Run, float, float]:
    """(capacity, load, its rate, seconds to recover)"""
    load = (given.documents, given.words)
    await closed_loop(server.url, 3, 2, *load)  # warm
    capacity = await closed_loop(server.url, given.seconds, given.clients, *load)
    rate = rate or given.share * capacity.documents_per_s / given.documents
    killing = asyncio.create_task(kill_one(server, given.seconds / 3)) if given.kill else None
    run = await open_loop(server.url, given.seconds, rate, *load)
    return capacity, run, rate, await killing if killing else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--share", type=float, default=0.7, help="of the capacity, in the open loop")
    parser.add_argument("--same-rate", action="store_true")
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors, {given.documents} documents a call")
    print("replicas | capacity documents/s | open loop calls/s | documents/s | P50 s | P95 s | failed | recovered s")
    first: float | None = None
    for number in given.replicas:
        server = Server(given.model, given.dtype, number)
        try:
            capacity, run, rate, recovered = asyncio.run(measure(server, given, first))
        finally:
            server.stop()
        if given.same_rate:
            first = first or rate
        row = (f"{capacity.documents_per_s:.1f}", f"{rate:.2f}", f"{run.documents_per_s:.1f}")
        times = (f"{percentile(run.seconds, share):.3f}" for share in (0.5, 0.95))
        print(" | ".join((f"{number}", *row, *times, f"{run.failed}", f"{recovered:.1f}")), flush=True)


if __name__ == "__main__":
    main()
