"""Calls in every API through a router with accounts, while its upstreams are killed, restarted, slowed and broken.

    PYTHONPATH=tests python -m support.chaos --calls 1000

Each API has so many calls. What happens to an upstream depends on the number of calls so far and on the seed, so it is
the same on a slow machine. Prints the result, and exits with 1 if a score or a charge is wrong, or a call hangs.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from rerankd.accounts.schema import entries
from rerankd.accounts.store import open_store
from rerankd.apis.facts import ALL, ApiFacts
from rerankd.client.dialects import num_tokens_about
from rerankd.client.reply import read_reply
from rerankd.types import sigmoid
from support.dialect_replies import logit_of
from support.routing import MODEL, left_of, routing, upstream
from support.upstream_server import BROKEN, HALF_A_BODY, HANGS, RESETS, Fault, UpstreamServer, busy, slow

BEHIND = ("vllm", "tei", "dashscope", "cohere")
"""The upstreams, all in one tier."""

PRICE = 1_000
"""Of a million tokens, so each token costs a thousandth."""

CREDIT = 10**14

DEADLINE_S, ATTEMPT_S = 2.0, 0.5

HANGS_AFTER_S = 30.0
"""Far beyond the deadline, also on a busy machine."""

NUM_CLIENTS = 12

EVERY = 25
"""Calls between two events."""

FAULTS: Sequence[Fault | None] = (None, None, None, slow(0.1), slow(0.3), BROKEN, HALF_A_BODY, RESETS, busy(0.2), HANGS)

DECIMAL_PLACES = {"jina": 8}
"""Of APIs whose replies have fewer than float64 has."""


@dataclass
class Outcome:
    """What came of it. Every list is empty if all is right.

    Attributes:
        answered: calls, by API; refused: the others, by API and status.
        events: what happened to the upstreams.
        wrong_scores, hangs, wrong_charges, wrong_sums: a sentence for each.
        seconds: of every call.
    """

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    wrong_scores: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    wrong_charges: list[str] = field(default_factory=list)
    wrong_sums: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return [*self.wrong_scores, *self.hangs, *self.wrong_charges, *self.wrong_sums]


class Trouble:
    """Kills, restarts, slows and breaks upstreams; one of them, another one each time, is left alone."""

    def __init__(self, servers: Sequence[UpstreamServer], seed: int, outcome: Outcome) -> None:
        self._servers, self._outcome = servers, outcome
        self._chance = random.Random(f"trouble-{seed}")
        self._dead: set[UpstreamServer] = set()

    def happen(self) -> None:
        """One event."""
        server = self._chance.choice(self._servers)
        if server in self._dead:
            self._note("restarted")
            server.start()
            self._dead.remove(server)
        elif all(other.fault or other in self._dead for other in self._servers if other is not server):
            self._note("repaired")
            server.fault = None
        elif self._chance.random() < 0.25:
            self._note("killed")
            server.kill()
            self._dead.add(server)
        else:
            server.fault = self._chance.choice(FAULTS)
            self._note("repaired" if server.fault is None else "slowed" if server.fault.wait_s else "broken")

    def _note(self, event: str) -> None:
        self._outcome.events[event] += 1


@dataclass(frozen=True)
class CallOf:
    """One call of one API. Its texts depend on its number and the seed."""

    facts: ApiFacts
    number: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.facts.name}-{self.number}"

    @property
    def query(self) -> str:
        return f"query {self.seed} of {self.name}"

    @property
    def documents(self) -> list[str]:
        return [f"document {place} of {self.name}" for place in range(1 + self.number % 5)]

    @property
    def tokens(self) -> int:
        """What it is charged for."""
        of_documents = sum(map(num_tokens_about, self.documents))
        return num_tokens_about(self.query) * len(self.documents) + of_documents

    @property
    def expected(self) -> dict[int, float]:
        places = DECIMAL_PLACES.get(self.facts.name, 15)
        scores = (sigmoid(logit_of(self.query, document)) for document in self.documents)
        return {index: round(score, places) for index, score in enumerate(scores)}

    def body(self) -> Any:
        if self.facts.name == "tei-predict":
            return {"inputs": [[self.query, document] for document in self.documents]}
        documents = self.documents
        return self.facts.body(self.query, documents, top_n=len(documents), instruct=None, model=MODEL)

    def scores(self, response: httpx2.Response) -> dict[int, float]:
        if self.facts.name == "tei-predict":
            return {index: of_pair["score"] for index, [of_pair] in enumerate(response.json())}
        return {one.index: one.score for one in read_reply(response, len(self.documents)).scores}


def path_of(facts: ApiFacts) -> str:
    """Where no other API answers, if there is such a path."""
    paths = {path for path in facts.paths if "{" not in path}
    others = {path for one in ALL if one.name != facts.name for path in one.paths}
    return max(paths - others or paths, key=lambda path: (len(path), path))


def storm(calls_of_each: int, seed: int, database: str, folder: Path) -> Outcome:
    """Runs it, with accounts in an empty database.

    Args:
        folder: for a settings file.
    """
    outcome = Outcome()
    store = open_store(database)
    account = store.accounts.create("team@example.org")
    store.ledger.add_credits(account.id, CREDIT)
    _, key = store.keys.create(account.id, "chaos")
    prices = folder / "rerankd.toml"
    prices.write_text(f'[rates."{MODEL}"]\ninput_price = {PRICE}\n')
    calls = [CallOf(facts, number, seed) for number in range(calls_of_each) for facts in ALL]
    random.Random(f"order-{seed}").shuffle(calls)
    answered: dict[str, int] = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(UpstreamServer(dialect)) for dialect in BEHIND]
        upstreams = [upstream(one.dialect, one, timeout_s=ATTEMPT_S) for one in servers]
        settings = {"accounts": True, "config": prices}
        router = stack.enter_context(routing(*upstreams, deadline_s=DEADLINE_S, settings=settings, store=store))
        router.client.headers["authorization"] = f"Bearer {key}"
        _ask_all(router.client, calls, Trouble(servers, seed, outcome), outcome, answered)
    store.database.close()
    _check_charges(database, account.id, {call.name: call.tokens for call in calls}, answered, outcome)
    return outcome


def _ask_all(
    client: httpx2.Client, calls: Sequence[CallOf], trouble: Trouble, outcome: Outcome, answered: dict[str, int]
) -> None:
    lock = threading.Lock()
    numbers = iter(range(len(calls)))

    def work() -> None:
        for number in left_of(numbers):
            if number % EVERY == 0:
                with lock:
                    trouble.happen()
            _ask(client, calls[number], outcome, answered, lock)

    clients = [threading.Thread(target=work) for _ in range(NUM_CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()


def _ask(client: httpx2.Client, call: CallOf, outcome: Outcome, answered: dict[str, int], lock: threading.Lock) -> None:
    started = time.monotonic()
    headers = {"x-request-id": call.name}
    try:
        response = client.post(path_of(call.facts), json=call.body(), headers=headers, timeout=HANGS_AFTER_S)
    except httpx2.HTTPError as error:
        with lock:
            outcome.hangs.append(f"{call.name}: {type(error).__name__} after {time.monotonic() - started:.1f} s")
        return
    with lock:
        outcome.seconds.append(time.monotonic() - started)
        if response.status_code != 200:
            outcome.refused[call.facts.name, response.status_code] += 1
            return
        outcome.answered[call.facts.name] += 1
        answered[call.name] = int(response.headers["x-rerankd-tokens"])
        if not _equal(found := call.scores(response), call.expected):
            outcome.wrong_scores.append(f"{call.name}: {found} in place of {call.expected}")


def _equal(found: dict[int, float], expected: dict[int, float]) -> bool:
    same = found.keys() == expected.keys()
    return same and all(abs(score - expected[index]) <= 1e-12 for index, score in found.items())


def _check_charges(
    database: str, account_id: int, tokens: dict[str, int], answered: dict[str, int], outcome: Outcome
) -> None:
    """One charge for each answered call, of its tokens, and none for another one; and the sums of the ledger."""
    store = open_store(database)  # without what the server's threads had open
    with store.database.read() as connection:
        rows = list(connection.execute(select(entries).where(entries.c.kind == "charge")))
    charges = Counter(row.request_id for row in rows)
    outcome.wrong_charges += [f"{name}: charged {number} times" for name, number in charges.items() if number > 1]
    outcome.wrong_charges += [f"{name}: charged without an answer" for name in charges.keys() - answered.keys()]
    outcome.wrong_charges += [f"{name}: answered without a charge" for name in answered.keys() - charges.keys()]
    outcome.wrong_charges += [
        f"{row.request_id}: charged {-row.amount} for {tokens[row.request_id]} tokens"
        for row in rows
        if -row.amount != PRICE * tokens[row.request_id] or answered.get(row.request_id) != tokens[row.request_id]
    ]
    outcome.wrong_sums += store.ledger.check()
    account = store.accounts.by_id(account_id)
    assert account is not None
    if account.reserved or account.balance != CREDIT + sum(row.amount for row in rows):
        outcome.wrong_sums.append(f"balance {account.balance}, reserved {account.reserved}")
    store.database.close()


def report(outcome: Outcome) -> Iterator[str]:
    """For people."""
    seconds, calls = sorted(outcome.seconds), len(outcome.seconds) + len(outcome.hangs)
    num_answered = outcome.answered.total()
    least = min(outcome.answered[facts.name] for facts in ALL)
    yield f"{calls} calls in {len(ALL)} APIs: {num_answered} answered, at least {least} in each"
    statuses: Counter[int] = Counter()
    for (_, status), number in outcome.refused.items():
        statuses[status] += number
    yield "not answered: " + (", ".join(f"{number} with {status}" for status, number in statuses.items()) or "none")
    yield "upstreams: " + ", ".join(f"{number} times {event}" for event, number in outcome.events.items())
    middle, late = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    yield f"a call took {middle:.3f} s (median), {late:.2f} s (99 %), {seconds[-1]:.2f} s (slowest); deadline 2 s"
    yield (
        f"wrong scores: {len(outcome.wrong_scores)}; hangs: {len(outcome.hangs)}; "
        f"wrong charges: {len(outcome.wrong_charges)}; wrong sums: {len(outcome.wrong_sums)}"
    )
    yield from outcome.wrong[:20]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1000, help="of each API (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", help="address of an empty database (default: SQLite in a temporary folder)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = asked.database or f"sqlite:///{folder}/accounts.db"
        outcome = storm(asked.calls, asked.seed, database, Path(folder))
    print("\n".join(report(outcome)))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
