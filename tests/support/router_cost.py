"""What a router adds to a call of 20 documents: time beside a direct call, and processor time of its own.

    PYTHONPATH=tests python -m support.router_cost

The router is a process of its own with a tokenizer, as in production; the server behind it answers at once. Directly
and through the router, in turns. Exits with 1 if the added median is above 3 ms.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from support.qwen_tokenizer import tokenizer_folder
from support.server import Server, launch
from support.upstream_server import UpstreamServer

NUM_DOCUMENTS = 20
MOST_ADDED_S = 0.003
WARM_UP = 20

TEXT = "is about nothing in particular, and says so in a few words."


def seconds_of(client: httpx2.Client, url: str, number: int) -> float:
    """Of one call, whose texts no call had before."""
    documents = [f"Document {number}.{place} {TEXT}" for place in range(NUM_DOCUMENTS)]
    started = time.perf_counter()
    response = client.post(f"{url}/v1/rerank", json={"query": f"query {number}", "documents": documents})
    took = time.perf_counter() - started
    assert response.status_code == 200, response.text
    return took


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(behind: str, router: Server, num_calls: int) -> tuple[tuple[list[float], list[float]], float]:
    """(seconds of each call, directly and through the router; processor seconds of the router, of one call)."""
    direct: list[float] = []
    routed: list[float] = []
    with httpx2.Client() as client:
        call = {"query": "q", "documents": ["d"]}
        router.wait_until(lambda: client.post(f"{router.url}/v1/rerank", json=call).status_code == 200)
        for number in range(WARM_UP):
            seconds_of(client, router.url, number)
        before = processor_seconds(router.process.pid)
        for number in range(WARM_UP, WARM_UP + num_calls):
            direct.append(seconds_of(client, behind, number))
            routed.append(seconds_of(client, router.url, number))
    return (direct, routed), (processor_seconds(router.process.pid) - before) / num_calls


def settings_of(behind: UpstreamServer, folder: Path) -> Path:
    tokenizer = tokenizer_folder(folder)
    path = folder / "rerankd.toml"
    upstream = f'[[models.m.upstreams]]\nname = "a"\nurl = "{behind.url}"\ndialect = "vllm"\n'
    path.write_text(f'[models.m]\ntokenizer = "{tokenizer}"\n{upstream}')
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1000)
    num_calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder, UpstreamServer() as behind:
        router = launch("--config", str(settings_of(behind, Path(folder))))
        try:
            times, used = measure(behind.url, router, num_calls)
        finally:
            router.process.terminate()
            router.process.wait(30)
    direct, routed = map(statistics.median, times)
    print(f"direct {direct * 1e3:.2f} ms, through the router {routed * 1e3:.2f} ms (medians of {num_calls} calls)")
    print(f"added {(routed - direct) * 1e3:.2f} ms; processor time of the router {used * 1e3:.2f} ms a call")
    return 1 if routed - direct > MOST_ADDED_S else 0


if __name__ == "__main__":
    sys.exit(main())
