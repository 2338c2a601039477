"""A router in front of real engines: documents/s directly and through it, in turns; the same logits; shares by weight.

    python benchmarks/router.py --model ./random-0.6B --workload A --calls 4

Directly and through the router, each call with the same texts, in turns (direct, routed, routed, direct, …), to one
worker whose score cache is off. Then a worker on each half of the processor's cores behind one router, with weights
1:1 under a load that keeps both busy, and 3:1 with one call at a time. `make random-0.6B` makes the folder.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from rerankd.bench.workloads import Workload, workload_of

WORKER = ("--skip-self-test", "--score-cache-mb", "0")

BUSY_CLIENTS = 4

SHARES_WORKLOAD = "1x10"
"""Calls short enough for many: the share of a few calls says nothing."""


@dataclass(frozen=True)
class Server:
    """A running `rerankd serve`."""

    url: str
    pid: int

    @property
    def processor_seconds(self) -> float:
        """Of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(*options: str, cores: Sequence[int] = ()) -> Iterator[Server]:
    """A server, once it answers. cores: those that it may use."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    if cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            url = next(found[1] for line in lines if (found := re.search(r"Listening on (http://\S+)", line)))
            next(line for line in lines if "Ready:" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait to write its log
            yield Server(url, process.pid)
        finally:
            process.terminate()


@contextmanager
def routing(folder: Path, workers: Sequence[Server], weights: Sequence[int]) -> Iterator[Server]:
    """A router in front of these workers."""
    sections = ['[models."qwen3-rerank"]\n']
    for number, (worker, weight) in enumerate(zip(workers, weights, strict=True)):
        section = f'name = "worker-{number}"\nurl = "{worker.url}"\ndialect = "rerankd"\nweight = {weight}\n'
        sections.append(f'[[models."qwen3-rerank".upstreams]]\n{section}skip_self_test = true\ntimeout_s = 600\n')
    path = folder / f"{'-'.join(map(str, weights))}.toml"
    path.write_text("".join(sections))
    with serving("--config", str(path)) as router, httpx2.Client() as client:
        while 'state="closed"' not in (text := client.get(f"{router.url}/metrics").text) or sum(
            float(value) for value in re.findall(r'_state{.*state="closed".*} (\S+)', text)
        ) < len(workers):
            time.sleep(0.1)
        yield router


def rank(client: httpx2.Client, url: str, texts: tuple[str, list[str]]) -> tuple[float, list[tuple[int, float]], str]:
    """(seconds, (index, logit) in the reply's order, the upstream that answered)."""
    body: dict[str, Any] = {"query": texts[0], "documents": texts[1], "use_activation": False}
    started = time.perf_counter()
    response = client.post(f"{url}/v1/rerank", json=body, timeout=600)
    seconds = time.perf_counter() - started
    response.raise_for_status()
    logits = [(one["index"], one["relevance_score"]) for one in response.json()["results"]]
    return seconds, logits, response.headers.get("x-rerankd-upstream", "")


def compare(worker: Server, router: Server, workload: Workload, num_calls: int) -> None:
    """Prints documents/s of both, and whether the logits are the same."""
    chance = random.Random(workload.name)
    seconds: dict[str, list[float]] = {"direct": [], "through the router": []}
    same, ways = 0, dict(zip(seconds, (worker, router), strict=True))
    before = worker.processor_seconds, router.processor_seconds
    with httpx2.Client() as client:
        for server in (worker, router):
            rank(client, server.url, workload.texts(chance))
        for number in range(num_calls):
            texts, logits = workload.texts(chance), []
            for way in list(ways)[:: -1 if number % 2 else 1]:
                took, found, _ = rank(client, ways[way].url, texts)
                seconds[way].append(took)
                logits.append(found)
            same += logits[0] == logits[1]
            print(f"  call {number + 1}: " + ", ".join(f"{way} {all_[-1]:.3f} s" for way, all_ in seconds.items()))
    rates = {way: workload.num_documents * num_calls / sum(all_) for way, all_ in seconds.items()}
    for way, rate in rates.items():
        print(f"{way:20} {rate:7.3f} documents/s")
    print(f"through the router / direct: {rates['through the router'] / rates['direct']:.1%}")
    used = worker.processor_seconds - before[0], router.processor_seconds - before[1]
    print(f"processor time: {used[1]:.2f} s of the router, {used[0]:.2f} s of the worker, which had twice the calls")
    print(f"the same logits to the bit: {same} of {num_calls} calls")


def share_out(
    workers: Sequence[Server], weights: Sequence[int], folder: Path, num_calls: int, num_clients: int
) -> None:
    """Prints the share of each worker."""
    workload, chance = workload_of(SHARES_WORKLOAD), random.Random("shares")
    calls = iter([workload.texts(chance) for _ in range(num_calls)])
    answered, lock = Counter[str](), threading.Lock()

    def work(url: str) -> None:
        with httpx2.Client() as client:
            while True:
                with lock:
                    texts = next(calls, None)
                if texts is None:
                    return
                _, _, upstream = rank(client, url, texts)
                with lock:
                    answered[upstream] += 1

    with routing(folder, workers, weights) as router:
        clients = [threading.Thread(target=work, args=(router.url,)) for _ in range(num_clients)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
    for number, weight in enumerate(weights):
        share, by_weight = answered[f"worker-{number}"] / num_calls, weight / sum(weights)
        print(f"  worker-{number}: {share:.1%} of {num_calls} calls, by weight {by_weight:.1%}", end=" ")
        print(f"({share / by_weight - 1:+.1%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--workload", default="A", type=workload_of)
    parser.add_argument("--calls", type=int, default=4, help="each way (default: 4)")
    parser.add_argument("--share-calls", type=int, default=1000, help="through two workers (default: 1000; 0: none)")
    asked = parser.parse_args()
    options = ("--model", asked.model, "--dtype", asked.dtype, *WORKER)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.calls:
            with serving(*options) as worker, routing(folder, [worker], [1]) as router:
                compare(worker, router, asked.workload, asked.calls)
        if asked.share_calls:
            with ExitStack() as stack:
                halves = cores[: len(cores) // 2], cores[len(cores) // 2 :]
                workers = [stack.enter_context(serving(*options, cores=half)) for half in halves]
                for weights, num_clients in (((1, 1), BUSY_CLIENTS), ((3, 1), 1)):
                    print(f"two workers, weights {weights[0]}:{weights[1]}, {num_clients} calls at a time")
                    share_out(workers, weights, folder, asked.share_calls, num_clients)


if __name__ == "__main__":
    main()
