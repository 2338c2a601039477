"""The upstreams of a pool: those of its settings and of the addresses of their names, also after a change."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator

from rerankd.client.address import read_address
from rerankd.upstreams.breaker import Breaker
from rerankd.upstreams.local import LocalEngine
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.settings import ModelSettings, UpstreamSettings
from rerankd.upstreams.upstream import Upstream

logger = logging.getLogger(__name__)

DNS_S = 10.0
"""Seconds between two look-ups of a name whose addresses are upstreams."""

IDLE_S = 0.5
"""Seconds between two checks whether a dropped upstream still works on a call."""


class Roster:
    """Keeps the members of a pool. An upstream that stays keeps its breaker, its connections and its counts.

    Args:
        local: the engine of this process, if it is one of them.
    """

    def __init__(self, pool: Pool, settings: ModelSettings, local: LocalEngine | None = None) -> None:
        self._pool, self._local = pool, local
        self._addresses: dict[str, tuple[str, ...]] = {}  # by host
        self._closing: set[asyncio.Task[None]] = set()
        self.settings = settings
        self.apply(settings)

    def apply(self, settings: ModelSettings) -> None:
        """Takes new settings: what is gone is closed when its calls have ended, what is new is probed first."""
        self.settings = settings
        self._pool.deadline_s, self._pool.same_model = settings.deadline_s, settings.same_model
        old = {member.name: member for member in self._pool.members if isinstance(member, Upstream)}
        members: list[Upstream] = []
        for one, url in self._wanted():
            known = old.get(one.name)
            if known is not None and known.url == url and _identity(known.settings) == _identity(one):
                known.change(one)
                members.append(old.pop(one.name))
            else:
                members.append(self._new(one, url))
        self._pool.members = (*members, *([self._local] if self._local else []))
        for dropped in old.values():
            self._drop(dropped)

    async def watch(self) -> None:
        """Looks the names up again and again. Runs until cancelled."""
        while any(one.discover for one in self.settings.upstreams):
            await self.resolve()
            await asyncio.sleep(DNS_S)

    async def resolve(self) -> None:
        """Looks every name with `discover` up once. One that cannot be found leaves its last addresses."""
        for one in self.settings.upstreams:
            if one.discover is None:
                continue
            url = read_address(one.url).url
            try:
                found = await asyncio.get_running_loop().getaddrinfo(
                    url.host, url.port or 80, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
                )
            except OSError as error:
                logger.warning("The addresses of upstream %s cannot be found: %s", one.name, error.strerror)
                continue
            addresses = tuple(sorted({str(address[0]) for *_, address in found}))
            if addresses != self._addresses.get(url.host):
                self._addresses[url.host] = addresses
                logger.info("Upstream %s has %d addresses", one.name, len(addresses))
                self.apply(self.settings)

    async def close(self) -> None:
        """Closes the connections of all."""
        for member in self._pool.members:
            await member.close()

    def _wanted(self) -> Iterator[tuple[UpstreamSettings, str]]:
        for one in self.settings.upstreams:
            if one.discover is None:
                yield one, one.url
                continue
            url = read_address(one.url).url
            for address in self._addresses.get(url.host, ()):
                yield one.model_copy(update={"name": f"{one.name}@{address}"}), str(url.copy_with(host=address))

    def _new(self, settings: UpstreamSettings, url: str) -> Upstream:
        breaker = Breaker(self._pool.chance, self._pool.clock())
        return Upstream(settings, breaker, self._pool.wake, url)

    def _drop(self, upstream: Upstream) -> None:
        async def close() -> None:
            while upstream.calls:
                await asyncio.sleep(IDLE_S)
            await upstream.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _identity(settings: UpstreamSettings) -> UpstreamSettings:
    """The identity of an upstream: if it changes, it is another upstream."""
    of_calls = UpstreamSettings(name=settings.name, url=settings.url)
    fixed = ("dialect", "model", "concurrency", "max_documents", "discover", "skip_self_test")
    return of_calls.model_copy(update={name: getattr(settings, name) for name in fixed})
