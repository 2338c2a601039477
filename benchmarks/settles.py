"""How many calls the ledger charges in a second: reserve and settle, without a server, on several accounts at once.

    python benchmarks/settles.py --database postgresql://rerankd@127.0.0.1/bench --threads 8

Prints the calls in a second, and the processor time of this process for each. Threads share the accounts.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

from rerankd.accounts.decision import CallCost
from rerankd.accounts.store import Store, open_store
from rerankd.prices import Price

PRICE = Price(model="qwen3-rerank", input_price=Decimal("0.1"))


def new_caller(store: Store) -> str:
    """The secret of a key of a new account with credit."""
    account = store.accounts.create(f"{uuid4().hex}@example.org")
    store.ledger.add_credits(account.id, 10**12)
    return store.keys.create(account.id, "bench")[1]


def work(store: Store, secrets: list[str], calls: int) -> None:
    callers = [store.keys.find(secret) for secret in secrets]
    for number in range(calls):
        caller = callers[number % len(callers)]
        assert caller is not None
        store.ledger.settle(store.ledger.reserve(caller, PRICE, CallCost(1000, uuid4().hex, b"x")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--accounts", type=int, default=16)
    parser.add_argument("--calls", type=int, default=500, help="of each thread (default: 500)")
    parser.add_argument("--database", help="address of a database (default: SQLite in a temporary folder)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(asked.database or f"sqlite:///{Path(folder) / 'accounts.db'}")
        secrets = [new_caller(store) for _ in range(asked.accounts)]
        orders = [secrets[at % len(secrets) :] + secrets[: at % len(secrets)] for at in range(asked.threads)]
        threads = [threading.Thread(target=work, args=(store, order, asked.calls)) for order in orders]
        started, used = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, calls = time.perf_counter() - started, asked.threads * asked.calls
        each = 1000 * (time.process_time() - used) / calls
        print(f"{calls / seconds:.0f} calls/s, {each:.2f} ms of processor time each")
        assert store.ledger.check() == []
        store.database.close()


if __name__ == "__main__":
    main()
