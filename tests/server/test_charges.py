"""What accounts are charged: through a kill in the middle of a thousand calls, by two servers at once, at the price of
the day. Each on real databases and servers."""

from __future__ import annotations

import asyncio
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from rerankd.accounts.schema import entries
from rerankd.accounts.store import Store, open_store
from rerankd.prices import Price
from rerankd.types import CallLimits
from support.ports import free_port
from support.redis_server import running_redis
from support.server import Server, StartServer
from support.stores import free_what_died

MODEL = "embedded-multilingual"
CARD = f'[rates."{MODEL}"]\ninput_price = 1_000\nfree_tokens = 3_000\n'  # a thousandth of a dollar each token
PATH = "/v1/reranks"
NUM_CALLS = 1000
NUM_CLIENTS = 64


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "rerankd.toml"
    path.write_text(CARD)
    return path


@dataclass
class Charging:
    """A server with accounts, and one account's key."""

    server: Server
    store: Store
    account_id: int
    key: str

    def entries(self) -> list[Any]:
        """Of charges, in their order."""
        with self.store.database.read() as connection:
            charges = select(entries).where(entries.c.kind == "charge", entries.c.account_id == self.account_id)
            return list(connection.execute(charges.order_by(entries.c.id)))

    def balance(self) -> int:
        account = self.store.accounts.by_id(self.account_id)
        assert account is not None
        return account.balance


@pytest.fixture
def start_charging(start_server: StartServer, store: Store, database_url: str, card: Path) -> Callable[..., Charging]:
    def start(*options: str, credit: int = 0, limits: CallLimits = CallLimits()) -> Charging:  # noqa: B008  frozen
        everything = ("--model", "embedded", "--accounts", "--database", database_url, "--config", str(card))
        server = start_server(*everything, "--max-queue", "2000", *options)
        account = store.accounts.by_email("team@example.org") or store.accounts.create(
            "team@example.org", limits=limits
        )
        if credit:
            store.ledger.add_credits(account.id, credit)
        _, key = store.keys.create(account.id, "test")
        server.key = key
        return Charging(server, store, account.id, key)

    return start


@pytest.fixture
def many_sockets() -> Iterator[None]:
    """A connection for each call at once; the usual limit is 1,024 files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Call:
    """One request; every tenth is a mistake and must not be charged."""

    number: int

    @property
    def id(self) -> str:
        return f"call-{self.number}"

    @property
    def is_good(self) -> bool:
        return self.number % 10 != 0

    @property
    def body(self) -> dict[str, Any]:
        documents = [f"document {self.number}", f"another one of {self.number}"]
        return {"model": "qwen3-rerank", "query": "what is it?", "documents": documents if self.is_good else []}


async def ask(client: httpx2.AsyncClient, call: Call, answers: dict[str, httpx2.Response]) -> None:
    try:
        answers[call.id] = await client.post(PATH, json=call.body, headers={"x-request-id": call.id})
    except httpx2.TransportError:
        pass  # nobody knows what became of it


def kill_when_charged(charging: Charging, count: int, answers: dict[str, httpx2.Response]) -> None:
    """Ends the server as soon as so many calls are in the ledger, and one is answered."""
    while len(charging.entries()) < count or not any(answer.status_code == 200 for answer in [*answers.values()]):
        time.sleep(0.01)
    charging.server.process.send_signal(signal.SIGKILL)


async def ask_all(charging: Charging, calls: list[Call], answers: dict[str, httpx2.Response]) -> None:
    """All at once. answers: by their ids, those that were answered."""
    limits = httpx2.Limits(max_connections=len(calls))
    headers = {"authorization": f"Bearer {charging.key}"}
    async with httpx2.AsyncClient(base_url=charging.server.url, headers=headers, limits=limits, timeout=600) as client:
        await asyncio.gather(*(ask(client, call, answers) for call in calls))


@pytest.mark.slow
def test_killed_in_the_middle_of_a_thousand_calls(start_charging: Callable[..., Charging], many_sockets: None) -> None:
    charging = start_charging(credit=10**12)
    calls = [Call(number) for number in range(NUM_CALLS)]
    answers: dict[str, httpx2.Response] = {}
    killer = threading.Thread(target=kill_when_charged, args=(charging, NUM_CALLS // 4, answers))
    killer.start()
    asyncio.run(ask_all(charging, calls, answers))
    killer.join()
    charging.server.process.wait()
    assert len(answers) < NUM_CALLS, "the kill came too late to be in the middle"

    ledger = charging.store.ledger
    charged = Counter(entry.request_id for entry in charging.entries())
    good = {call.id for call in calls if call.is_good}
    answered = {call_id for call_id, answer in answers.items() if answer.status_code == 200}
    assert ledger.check() == [], "the ledger balances right after the kill"
    assert set(charged.values()) == {1}
    assert answered <= charged.keys() <= good

    again = start_charging()
    again.key = charging.key
    retried: dict[str, httpx2.Response] = {}
    asyncio.run(ask_all(again, calls, retried))  # those that were answered, too
    assert {call_id for call_id, answer in retried.items() if answer.status_code == 200} == good
    assert Counter(entry.request_id for entry in charging.entries()) == Counter(good), "each is charged once in all"

    paid = {entry.request_id: entry for entry in charging.entries()}
    for call_id in good:
        tokens = retried[call_id].json()["usage"]["total_tokens"]
        assert paid[call_id].tokens == tokens == paid[call_id].free_tokens + paid[call_id].billed_tokens
        assert paid[call_id].amount == -1000 * paid[call_id].billed_tokens
    free = sum(entry.free_tokens for entry in paid.values())
    assert 0 < free <= 3000, "the rest was set aside by calls that died"
    assert charging.balance() == 10**12 + sum(entry.amount for entry in paid.values())

    free_what_died(charging.store)
    assert ledger.check() == []
    account = charging.store.accounts.by_id(charging.account_id)
    assert account is not None and account.reserved == 0, "what the dead server had set aside is free again"
    price = Price(model=MODEL, input_price=Decimal(1000), free_tokens=3000)
    quota = ledger.quota(account.id, price)
    assert (quota.used, quota.left) == (free, 3000 - free)


async def crowd(chargings: list[Charging], num_calls: int) -> Counter[int]:
    """So many calls of one price by 64 clients, half of them to each server: how many of each status."""
    turns = iter(range(num_calls))
    statuses: Counter[int] = Counter()

    async def client_of(charging: Charging) -> None:
        headers = {"authorization": f"Bearer {charging.key}"}
        async with httpx2.AsyncClient(base_url=charging.server.url, headers=headers, timeout=120) as client:
            for _ in turns:
                answer = await client.post(PATH, json=Call(1).body)
                statuses[answer.status_code] += 1

    await asyncio.gather(*(client_of(chargings[i % len(chargings)]) for i in range(NUM_CLIENTS)))
    return statuses


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_servers_hold_one_balance(start_charging: Callable[..., Charging], card: Path) -> None:
    card.write_text(card.read_text().replace("free_tokens = 3_000", ""))
    [first, second] = [start_charging(), start_charging()]
    broke = first.server.post(PATH, Call(1).body)
    assert (broke.status_code, broke.json()["error"]["code"]) == (429, "insufficient_quota")
    first.store.ledger.add_credits(first.account_id, 10**9)
    cost = 1000 * first.server.post(PATH, Call(1).body).json()["usage"]["total_tokens"]
    first.store.ledger.add_credits(first.account_id, 100 * cost + cost // 2 - first.balance())

    statuses = asyncio.run(crowd([first, second], 300))
    assert statuses == {200: 100, 429: 200}
    assert first.balance() == cost // 2
    assert len(first.entries()) == 101 and first.store.ledger.check() == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_servers_hold_one_limit(start_charging: Callable[..., Charging]) -> None:
    with running_redis(free_port()) as redis:
        limits = CallLimits(requests_per_minute=120)
        pair = [start_charging("--redis", redis, credit=10**12, limits=limits) for _ in range(2)]
        started = time.monotonic()
        statuses = asyncio.run(crowd(pair, 300))
        minutes = 1 + int((time.monotonic() - started) / 60)  # a slow machine may take several
        assert statuses.keys() == {200, 429} and 120 <= statuses[200] <= minutes * 120
        assert len(pair[0].entries()) == statuses[200] and pair[0].store.ledger.check() == []
        for charging in pair:  # Redis is about to go
            charging.server.process.terminate()
            charging.server.process.wait()


def test_the_next_call_is_charged_at_the_rate_in_the_file(start_charging: Callable[..., Charging], card: Path) -> None:
    charging = start_charging(credit=10**9)
    for price, micro in (("0.35", 0.35), ("12", 12)):
        card.write_text(f'[rates."{MODEL}"]\ninput_price = {price}\n')
        answer = charging.server.post(PATH, Call(7).body)
        tokens = answer.json()["usage"]["total_tokens"]
        [shown] = httpx2.get(f"{charging.server.url}/v1/rates").json()["data"]
        assert shown["input_price"] == price
        assert price in httpx2.get(f"{charging.server.url}/rates").text
        cost = -int(-tokens * micro // 1)
        assert int(answer.headers["x-rerankd-cost"]) == cost > 0
        assert charging.entries()[-1].amount == -cost and charging.entries()[-1].price == price


LONG = {"model": "qwen3-rerank", "query": "what is a bank?", "documents": [f"{'river ' * 50}{n}" for n in range(3)]}
CUT = {**LONG, "max_tokens_per_doc": 1, "truncate_prompt_tokens": -1}
OTHER_WORK: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "texts cut to one token, then whole": ("/v1/rerank", CUT, "/v1/rerank", LONG),
    "whole, then cut": ("/v1/rerank", LONG, "/v1/rerank", CUT),
    "another number of results": (PATH, {**LONG, "top_n": 1}, PATH, LONG),
    "another model's name": (PATH, LONG, PATH, {**LONG, "model": "gte-rerank"}),
    "another instruct": (PATH, {**LONG, "instruct": "a"}, PATH, {**LONG, "instruct": "b"}),
    "another surface": (PATH, LONG, "/cohere/v2/rerank", LONG),
    "another order": (PATH, LONG, PATH, {**LONG, "documents": LONG["documents"][::-1]}),
    "a document more": (PATH, LONG, PATH, {**LONG, "documents": [*LONG["documents"], "a"]}),
    "the boundary moved": (PATH, {**LONG, "documents": ["ab", "c"]}, PATH, {**LONG, "documents": ["a", "bc"]}),
    "an explanation more": ("/v1/rerank", LONG, "/v1/rerank", {**LONG, "explain": True}),
}


@pytest.fixture(scope="module")
def one_charging(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Charging]:
    """A server of this module's own, on SQLite, where nothing is free."""
    folder = tmp_path_factory.mktemp("charging")
    card, url = folder / "rerankd.toml", f"sqlite:///{folder / 'accounts.db'}"
    card.write_text(CARD.replace("free_tokens = 3_000", ""))
    store = open_store(url)
    account = store.accounts.create("team@example.org")
    store.ledger.add_credits(account.id, 10**12)
    _, key = store.keys.create(account.id, "test")
    server = start_server("--model", "embedded", "--accounts", "--database", url, "--config", str(card))
    server.key = key
    yield Charging(server, store, account.id, key)
    store.database.close()


@pytest.mark.parametrize("kind", OTHER_WORK)
def test_other_work_under_the_same_id_is_charged(one_charging: Charging, kind: str) -> None:
    first_path, first_body, path, body = OTHER_WORK[kind]
    server, name = one_charging.server, {"x-request-id": f"id of {kind}".replace(" ", "-")}
    first = server.post(first_path, first_body, headers=name)
    costs = [int(server.post(path, body, headers=name).headers["x-rerankd-cost"]) for _ in range(2)]
    assert int(first.headers["x-rerankd-cost"]) > 0, first.text
    assert costs[0] > 0 and costs[1] == 0, "only the very same call is free"
    assert server.post(first_path, first_body, headers=name).headers["x-rerankd-cost"] == "0"


def test_nothing_tells_an_account_what_another_one_scored(one_charging: Charging) -> None:
    store, server = one_charging.store, one_charging.server
    _, other = store.keys.create(store.accounts.create("other@example.org").id, "other")
    store.ledger.add_credits(store.accounts.by_email("other@example.org").id, 10**12)  # type: ignore[union-attr]
    body = {"model": MODEL, "query": "is it told?", "documents": ["a secret"], "explain": True}

    def cached(key: str) -> bool:
        [result] = server.post("/v1/rerank", body, key=key).json()["results"]
        return bool(result["explain"]["cached"])

    assert [cached(key) for key in (one_charging.key, one_charging.key, other, other)] == [False, True, False, True]
