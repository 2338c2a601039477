"""What keys, limits and the ledger cost a call: two servers of the same model, one of them with accounts, in turns.

    python benchmarks/accounts.py --model embedded --calls 500

Each call has one short text that no call had before. Prints the median of each and their difference, in ms. With a
database of its own, on SQLite unless --database names another; a price list, limits of calls and of tokens are on.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from rerankd.accounts.store import open_store
from rerankd.types import CallLimits

CARD = '[rates."{name}"]\ninput_price = 0.1\n'
LIMITS = CallLimits(requests_per_minute=10**6, tokens_per_minute=10**9, concurrency=1000)
WARM_UP = 20


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A server's address, once it answers."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            url = next(found[1] for line in lines if (found := re.search(r"Listening on (http://\S+)", line)))
            next(line for line in lines if "Ready:" in line)
            os.set_blocking(process.stderr.fileno(), False)
            yield url
        finally:
            process.terminate()


def milliseconds(client: httpx2.Client, number: int) -> float:
    """Of one call."""
    body = {"model": "qwen3-rerank", "query": "what is it?", "documents": [f"text {number}"]}
    started = time.perf_counter()
    client.post("/v1/reranks", json=body).raise_for_status()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--calls", type=int, default=500, help="to each server (default: 500)")
    parser.add_argument("--database", help="address of an empty database (default: SQLite in a temporary folder)")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = asked.database or f"sqlite:///{folder / 'accounts.db'}"
        store = open_store(database)
        account = store.accounts.create("bench@example.org", limits=LIMITS)
        store.ledger.add_credits(account.id, 10**12)
        _, key = store.keys.create(account.id, "bench", limits=LIMITS)
        model = ("--model", asked.model, "--skip-self-test")
        plain = httpx2.Client(base_url=stack.enter_context(serving(*model)))
        name = plain.get("/v1/models").json()["data"][0]["id"]
        (folder / "rerankd.toml").write_text(CARD.format(name=name))
        options = ("--accounts", "--database", database, "--config", str(folder / "rerankd.toml"))
        url = stack.enter_context(serving(*model, *options))
        charged = httpx2.Client(base_url=url, headers={"authorization": f"Bearer {key}"})
        times: dict[str, list[float]] = {"without accounts": [], "with accounts": []}
        for number in range(WARM_UP + asked.calls):
            for what, client in zip(times, (plain, charged), strict=True):
                times[what].append(milliseconds(client, number))
        medians = {what: statistics.median(values[WARM_UP:]) for what, values in times.items()}
        for what, median in medians.items():
            print(f"{what:17} {median:7.2f} ms")
        print(f"{'difference':17} {medians['with accounts'] - medians['without accounts']:7.2f} ms")
        assert store.ledger.check() == []


if __name__ == "__main__":
    main()
