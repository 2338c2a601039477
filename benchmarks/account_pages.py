"""How long each page of a server with many accounts takes: fills a database, starts the server, asks each page.

    python benchmarks/account_pages.py
    python benchmarks/account_pages.py --database postgresql://rerankd@127.0.0.1/bench

Prints, for each page, the time until its first byte and until its end (P50, P95, in ms), and the processor time of the
server (of one request, in ms). One account of the database has a fifth of all charges; the others follow Zipf's law.
The pages are those of this account and of an administrator.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from rerankd.accounts.latencies import class_of
from rerankd.accounts.store import Store, open_store

CARD = '[rates."{model}"]\ninput_price = 0.1\n'
MODELS = ("qwen3-rerank", "qwen3-rerank-4b", "gte-rerank")
DAY_US = 86_400_000_000
ADMIN, USER = 1, 2
"""The ids of the two accounts whose pages are asked."""

BOUND_MS = 300
WARM_UP = 2
CHUNK = 5_000

Rows = Iterable[tuple[Any, ...]]


class Filler:
    """Inserts rows in the fastest way of the database. The triggers run."""

    def __init__(self, url: str) -> None:
        self._sqlite: sqlite3.Connection | None = None
        if url.startswith("sqlite:///"):
            self._sqlite = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            for pragma in ("synchronous = OFF", "cache_size = -400000"):
                self._sqlite.execute(f"PRAGMA {pragma}")
        else:
            import psycopg

            self._postgres = psycopg.connect(url)
            self._postgres.execute("SET synchronous_commit = off")

    def insert(self, table: str, columns: str, rows: Rows) -> None:
        if self._sqlite is not None:
            self._sqlite.execute("BEGIN")
            marks = ", ".join("?" * len(columns.split(",")))
            self._sqlite.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
            self._sqlite.execute("COMMIT")
            return
        waiting = iter(rows)
        while chunk := list(islice(waiting, CHUNK)):
            with self._postgres.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in chunk:
                    copy.write_row(row)
            self._postgres.commit()

    def run(self, statement: str) -> None:
        if self._sqlite is not None:
            self._sqlite.execute(statement)
        else:
            self._postgres.execute(statement)
            self._postgres.commit()

    def finish(self) -> None:
        """PostgreSQL's own housekeeping does this in a database that lives; nothing does it in SQLite."""
        if self._sqlite is not None:
            self._sqlite.close()
            return
        self._postgres.autocommit = True
        self._postgres.execute("VACUUM ANALYZE")
        self._postgres.close()


def fill(store: Store, filler: Filler, accounts: int, entries: int, days: int) -> None:
    chance = np.random.default_rng(7)
    now = int(time.time() * 1e6)
    store.accounts.create("admin@example.org", "Ada", role="admin")
    filler.insert("accounts", "email, name, role, created, disabled, balance, reserved", _accounts(accounts, now, days))
    keys_of = 1 + chance.integers(0, 3, accounts)
    first_key = np.concatenate([[1], 1 + np.cumsum(keys_of)[:-1]])
    names = "account_id, name, hash, hint, created, models"
    filler.insert("keys", names, _keys(keys_of, now))
    owner = _owners(chance, accounts, entries)
    moment = np.sort(now - chance.integers(0, days * DAY_US, entries))
    key = first_key[owner - 1] + chance.integers(0, 3, entries) % keys_of[owner - 1]
    tokens = np.maximum(20, chance.lognormal(7.5, 1.2, entries)).astype(np.int64)
    columns = "account_id, kind, amount, balance_after, time, note, key_id, model, request_id, tokens, free_tokens, "
    columns += "billed_tokens, price, currency, idempotency_key, occurrence, dialect"
    filler.insert("entries", columns, _entries(owner, moment, key, tokens, accounts, now - days * DAY_US))
    filler.run(
        "UPDATE accounts SET balance = (SELECT COALESCE(SUM(amount), 0) FROM entries WHERE account_id = accounts.id)"
    )
    recent = moment > now - 30 * DAY_US
    _add_calls(filler, chance, owner[recent], moment[recent], key[recent], tokens[recent])
    log = (
        (now - number * 60_000_000, ADMIN, "credit added", 1 + number % accounts, "25.00") for number in range(20_000)
    )
    filler.insert("admin_log", "time, made_by, action, account_id, detail", log)
    filler.finish()


def _owners(chance: np.random.Generator, accounts: int, entries: int) -> Any:
    """Whose charge each is: a fifth is the user's, the others follow Zipf's law."""
    weights = 1 / (np.arange(accounts) + 20)
    weights[USER - 1] = weights.sum() / 4
    return 1 + chance.choice(accounts, entries, p=weights / weights.sum())


def _accounts(number: int, now: int, days: int) -> Rows:
    for one in range(1, number):
        yield f"user{one:05}@example.org", f"Name {one * 7919 % number}", "user", now - days * DAY_US, False, 0, 0


def _keys(keys_of: Any, now: int) -> Rows:
    for account, number in enumerate(keys_of, start=1):
        for one in range(number):
            yield account, f"key {one}", os.urandom(32), "rk-abcd…wxyz", now, "[]"


def _entries(owner: Any, moment: Any, key: Any, tokens: Any, accounts: int, start: int) -> Rows:
    """The credits of the first day; then the charges, and a credit of the user about once a week."""
    balance = dict.fromkeys(range(1, accounts + 1), 10**12)
    blank = (None, None, None, 0, 0, 0, None, None, None, None, None)
    for account in balance:
        yield account, "credit", 10**12, 10**12, start - 1, "start", *blank
    week = 0
    rows = zip(owner.tolist(), moment.tolist(), key.tolist(), tokens.tolist(), strict=True)
    for number, (account, when, key_id, count) in enumerate(rows):
        if when // (7 * DAY_US) > week:
            week = when // (7 * DAY_US)
            balance[USER] += 25_000_000
            yield USER, "credit", 25_000_000, balance[USER], when, "invoice", *blank
        cost = count // 10
        balance[account] -= cost
        charge = (key_id, MODELS[key_id % 3], f"req-{number}", count, 0, count, "0.1", "USD")
        yield account, "charge", -cost, balance[account], when, None, *charge, number.to_bytes(32), 0, "jina"


def _add_calls(filler: Filler, chance: np.random.Generator, owner: Any, moment: Any, key: Any, tokens: Any) -> None:
    """The list of calls, of which one in 50 was refused, and the sums that the server keeps with it."""
    refused = chance.random(len(owner)) < 0.02

    def rows() -> Rows:
        columns = (owner.tolist(), key.tolist(), moment.tolist(), tokens.tolist(), refused.tolist())
        for number, (account, key_id, when, count, no) in enumerate(zip(*columns, strict=True)):
            about = (account, key_id, when, f"req-{number}", "jina", 429 if no else 200, 5 if no else count // 20)
            if no:
                yield *about, None, None, None, 0, "RateLimited", "The limit is 100 requests per minute."
            else:
                yield *about, MODELS[key_id % 3], 30, count, count // 10, None, None

    names = (
        "account_id, key_id, time, request_id, dialect, status, milliseconds, model, documents, tokens, cost, error, "
    )
    filler.insert("calls", f"{names}reason", rows())
    sums = "SUM(CASE WHEN error IS NULL THEN 1 ELSE 0 END), SUM(CASE WHEN error IS NULL THEN 0 ELSE 1 END), "
    sums += "SUM(COALESCE(documents, 0)), SUM(CASE WHEN error IS NULL THEN milliseconds ELSE 0 END)"
    for table, by in (
        ("daily_calls", f"account_id, time / {DAY_US}, key_id"),
        ("daily_call_totals", f"time / {DAY_US}"),
    ):
        columns = by.replace(f"time / {DAY_US}", "day")
        by = by.replace("time", "calls.time")
        filler.run(
            f"INSERT INTO {table} ({columns}, answered, refused, documents, milliseconds) "
            f"SELECT {by}, {sums} FROM calls GROUP BY {by}"
        )
    _add_latencies(filler, owner[~refused], moment[~refused] // DAY_US, tokens[~refused] // 20)


def _add_latencies(filler: Filler, owner: Any, day: Any, milliseconds: Any) -> None:
    """How long the answered calls of each day took."""
    of_accounts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    of_days: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for account, when, ms in zip(owner.tolist(), day.tolist(), milliseconds.tolist(), strict=True):
        of_accounts[account, when][class_of(ms)] += 1
        of_days[when,][class_of(ms)] += 1
    for table, names, counts in (
        ("daily_latencies", "account_id, day, counts", of_accounts),
        ("daily_latency_totals", "day, counts", of_days),
    ):
        filler.insert(table, names, ((*key, json.dumps(one)) for key, one in counts.items()))


@contextmanager
def serving(*options: str) -> Iterator[tuple[str, int]]:
    """A server's address and process, once it is ready."""
    command = [sys.executable, "-m", "rerankd", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr)
            url = next(found[1] for line in lines if (found := re.search(r"Listening on (http://\S+)", line)))
            next(line for line in lines if "Ready:" in line)
            reader = threading.Thread(target=deque, args=(lines, 0))  # a full pipe would stop the server
            reader.start()
            yield url, process.pid
        finally:
            process.terminate()
            reader.join()


def pages() -> Iterator[tuple[int, str]]:
    """(whose, path) of each page."""
    own = f"/admin/accounts/{USER}"
    admin = (
        "/admin",
        "/admin?search=user012",
        "/admin?search=nobody",
        "/admin?sort=-credit",
        "/admin?sort=name&page=80",
    )
    usage = tuple(f"/usage?days={days}" for days in (7, 30, 90, 365))
    calls = (
        "/calls",
        "/calls?outcome=refused",
        "/calls?status=429",
        "/calls?id=req-77",
        "/calls?model=none",
        "/calls?days=1",
    )
    tables = ("/usage.csv?days=30", "/usage-by-day.csv?days=365", "/calls.csv?days=30")
    of_all = ("/admin/log", "/admin/log?before=9000", "/admin/server", own, f"{own}?days=365", f"{own}/log")
    for path in (*admin, *(f"/admin{one}" for one in (*usage, *calls, *tables)), *of_all):
        yield ADMIN, path
    statement = (
        *(f"/statement?days={days}" for days in (30, 90, 365)),
        "/statement.csv?days=30",
        "/statement.csv?days=365",
    )
    for path in (*usage, *statement, *calls, *tables, "/keys", "/account", "/rates"):
        yield USER, path


def processor_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(client: httpx2.Client, path: str) -> tuple[float, float, int]:
    """(ms to the first byte, ms to the end, bytes)."""
    started = time.perf_counter()
    with client.stream("GET", path) as response:
        first, size = None, 0
        for part in response.iter_bytes():
            first, size = first or time.perf_counter(), size + len(part)
        assert response.status_code == 200, (path, response.status_code)
    ended = time.perf_counter()
    return 1000 * ((first or ended) - started), 1000 * (ended - started), size


def measure(client: httpx2.Client, process: int, path: str, repeats: int) -> float:
    """Prints a line. Returns the P95 of the first byte, in ms."""
    for _ in range(WARM_UP):
        size = ask(client, path)[2]
    before = processor_s(process)
    firsts, ends, _ = zip(*(ask(client, path) for _ in range(repeats)), strict=True)
    each = 1000 * (processor_s(process) - before) / repeats
    (first_50, first_95), (end_50, end_95) = (
        (statistics.median(values), statistics.quantiles(values, n=20)[18]) for values in (firsts, ends)
    )
    figures = f"{first_50:7.0f} {first_95:7.0f} {end_50:8.0f} {end_95:7.0f} {each:7.0f} {size / 1000:7.0f}"
    print(f"{path:45} {figures}", flush=True)
    return float(first_95)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--accounts", type=int, default=5_000)
    parser.add_argument("--entries", type=int, default=2_000_000, help="charges, over so many --days")
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--repeats", type=int, default=25, help="requests of each page (default: 25)")
    parser.add_argument("--database", help="address of an empty database (default: SQLite in a temporary folder)")
    parser.add_argument("--filled", action="store_true", help="an earlier run filled the database")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = asked.database or f"sqlite:///{folder / 'accounts.db'}"
        store = open_store(database)
        if not asked.filled:
            started = time.perf_counter()
            fill(store, Filler(database), asked.accounts, asked.entries, asked.days)
            print(f"filled in {time.perf_counter() - started:.0f} s, {datetime.now(UTC):%H:%M} UTC", flush=True)
        card = folder / "rerankd.toml"
        card.write_text("".join(CARD.format(model=model) for model in ("embedded-multilingual", *MODELS)))
        options = (
            "--model",
            "embedded",
            "--skip-self-test",
            "--accounts",
            "--database",
            database,
            "--config",
            str(card),
        )
        url, process = stack.enter_context(serving(*options))
        clients = {
            who: httpx2.Client(base_url=url, cookies={"rerankd-session": store.sessions.open(who)}, timeout=60)
            for who in (ADMIN, USER)
        }
        print(f"load {os.getloadavg()[0]:.1f}")
        print(f"{'page':45} {'first byte, ms':>15} {'end, ms':>16} {'cpu, ms':>7} {'KB':>7}")
        print(f"{'':45} {'P50':>7} {'P95':>7} {'P50':>8} {'P95':>7}")
        slowest = {path: measure(clients[who], process, path, asked.repeats) for who, path in pages()}
        over = [path for path, ms in slowest.items() if ms > BOUND_MS]
        print(f"over {BOUND_MS} ms: {', '.join(over) or 'none'} of {len(slowest)}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
