"""A router in the process of the test, in front of servers that the test holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from rerankd.accounts.store import Store
from rerankd.server.models import Models
from rerankd.server.served_pool import ServedPool
from rerankd.upstreams.member import Member
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.probe import Verdict
from rerankd.upstreams.settings import ModelSettings
from support.serving import serving_model
from support.upstream_server import UpstreamServer
from support.waiting import wait_until

JSON = dict[str, Any]

MODEL = "qwen3-rerank"


@dataclass
class Router:
    """A running router: its client, and the pool inside it, to look at."""

    client: httpx2.Client
    served: ServedPool
    settings: list[ModelSettings]

    @property
    def pool(self) -> Pool:
        return self.served.pool

    def member(self, name: str) -> Member:
        return self.pool.member(name)

    def state(self, name: str) -> str:
        return self.member(name).state(self.pool.clock())

    def wait_for(self, **states: str) -> None:
        """Until upstreams have these states."""
        wait_until(lambda: all(self.state(name) == state for name, state in states.items()))

    def change(self, *upstreams: JSON, **model: Any) -> None:
        """Other settings, as if the settings file had changed; returns when they are in force."""
        self.settings[:] = [ModelSettings.model_validate({"upstreams": upstreams, **model})]
        wait_until(lambda: self.served.settings == self.settings[0])

    def probe(self, name: str) -> Verdict:
        """Checks an upstream now."""
        assert self.served.loop is not None
        return asyncio.run_coroutine_threadsafe(self.served.probe_now(name), self.served.loop).result(60)

    def rerank(self, query: str, documents: list[str], **fields: Any) -> httpx2.Response:
        return self.client.post("/v1/rerank", json={"query": query, "documents": documents, **fields})

    def rerank_often(self, number: int, threads: int, documents: int = 3) -> list[httpx2.Response]:
        """Calls in a closed loop of several threads, each with a query of its own."""
        responses: list[httpx2.Response] = []
        left = iter(range(number))

        def work() -> None:
            for at in left_of(left):
                texts = [f"document {at}.{place} of some length" for place in range(documents)]
                responses.append(self.rerank(f"query {at}", texts))

        running = [threading.Thread(target=work) for _ in range(threads)]
        for one in running:
            one.start()
        for one in running:
            one.join()
        return responses


_lock = threading.Lock()


def left_of(numbers: Iterator[int]) -> Iterator[int]:
    """An iterator that several threads share."""
    while True:
        with _lock:
            number = next(numbers, None)
        if number is None:
            return
        yield number


def upstream(name: str, server: UpstreamServer | str, **settings: Any) -> JSON:
    """The settings of an upstream at a stand-in."""
    if isinstance(server, str):
        return {"name": name, "url": server, **settings}
    return {"name": name, "url": server.url, "dialect": server.dialect, **settings}


@contextmanager
def routing(
    *upstreams: JSON,
    wait: bool = True,
    settings: JSON | None = None,
    store: Store | None = None,
    name: str | None = MODEL,
    **model: Any,
) -> Iterator[Router]:
    """A router in front of these upstreams.

    Args:
        wait: until every upstream has passed its first probe.
        settings: of the server.
    """
    current = [ModelSettings.model_validate({"upstreams": upstreams, **model})]
    served = ServedPool(name, lambda: current[0])
    with serving_model(Models(served), store=store, **settings or {}) as client:
        router = Router(client, served, current)
        if wait:
            wait_until(lambda: all(router.state(one["name"]) == "closed" for one in upstreams))
        yield router
