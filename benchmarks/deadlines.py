"""How late replies with a deadline are, under load.

    python benchmarks/deadlines.py                                       # the embedded model
    python benchmarks/deadlines.py --model ./random-0.6B --deadline 2000

Callers without a deadline keep the server busy, each with one call after the other, while 200 calls with a deadline go
one after the other. `overrun` is the time from the deadline to the reply as the client sees it, below 0 where it was in
time; `batch` is the time of a full batch at the speed of the run: the bound of an engine that waits for its last batch.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time

import httpx2
from long_documents import serving

WORDS = "harbour town ships nutmeg cinnamon wooden boats island farmers cloves autumn market prices letters".split()
MAX_BATCH_TOKENS = 512


def body(number: int, documents: int, words: int) -> dict[str, object]:
    """A call that no cache knows."""
    texts = [
        " ".join(WORDS[(number * 7 + at * 5 + word) % len(WORDS)] + str((number + at) % 97) for word in range(words))
        for at in range(documents)
    ]
    return {"query": f"where do cloves grow {number}", "documents": texts}


async def keep_busy(client: httpx2.AsyncClient, caller: int, args: argparse.Namespace) -> None:
    for number in range(10**9):
        await client.post("/v1/rerank", json=body(caller * 10**6 + number, args.documents, args.words))


async def measure(url: str, args: argparse.Namespace) -> None:
    async with httpx2.AsyncClient(base_url=url, timeout=600) as client:
        busy = [asyncio.create_task(keep_busy(client, caller + 1, args)) for caller in range(args.callers)]
        overruns, scored, refused = [], 0, 0
        for number in range(args.calls):
            asked = {**body(number, args.documents, args.words), "deadline_ms": args.deadline}
            started = time.monotonic()
            reply = await client.post("/v1/rerank", json=asked)
            overruns.append((time.monotonic() - started) * 1000 - args.deadline)
            refused += reply.status_code == 503
            scored += sum(row.get("scored", True) for row in reply.json().get("results", []))
        for one in busy:
            one.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        metrics = dict(
            line.rsplit(" ", 1) for line in (await client.get("/metrics")).text.splitlines() if line[:1] != "#"
        )
    found = {name: float(value) for name, value in metrics.items()}
    seconds = sum(value for name, value in found.items() if name.startswith("rerankd_compute_seconds_total"))
    tokens = sum(value for name, value in found.items() if "rerankd_prompt_tokens_total" in name and "computed" in name)
    p50, p95 = statistics.median(overruns), statistics.quantiles(overruns, n=20)[-1]
    print(f"{args.model}: {args.calls} calls of {args.documents} x {args.words} words, deadline {args.deadline} ms")
    batch = MAX_BATCH_TOKENS * seconds / max(1, tokens) * 1000
    print(f"overrun P50 {p50:.0f}, P95 {p95:.0f}, most {max(overruns):.0f} ms; a full batch {batch:.0f} ms")
    print(f"scored {scored / args.calls / args.documents:.0%} of the documents; 503: {refused}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--callers", type=int, default=4, help="that keep the server busy")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--words", type=int, default=80, help="of a document")
    parser.add_argument("--deadline", type=int, default=150, help="ms")
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    with serving(args.model) as (url, _):
        asyncio.run(measure(url, args))


if __name__ == "__main__":
    main()
