"""Which upstreams a pool has while the addresses of a name and the settings change."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from rerankd.upstreams.member import Member
from rerankd.upstreams.pool import Pool
from rerankd.upstreams.roster import Roster
from rerankd.upstreams.settings import ModelSettings

UPSTREAM = {"name": "workers", "url": "http://workers:8000/v1", "discover": "dns"}


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the name `workers`; none: it cannot be found."""
    known: list[str] = []
    look_up = socket.getaddrinfo

    def found(host: str, *rest: Any, **options: Any) -> Any:
        if host != "workers":
            return look_up(host, *rest, **options)
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [one for address in known for one in look_up(address, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return known


def members_of(pool: Pool) -> dict[str, Member]:
    return {member.name: member for member in pool.members}


def settings(**changes: Any) -> ModelSettings:
    return ModelSettings.model_validate({"upstreams": [{**UPSTREAM, **changes}]})


def test_each_address_of_a_name_is_an_upstream(addresses: list[str]) -> None:
    async def use() -> None:
        addresses[:] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
        pool = Pool("model")
        roster = Roster(pool, settings())
        assert pool.members == ()
        await roster.resolve()
        before = members_of(pool)
        assert [(name, member.hidden[0]) for name, member in before.items()] == [
            (f"workers@{address}", address) for address in addresses
        ]

        addresses[:] = ["10.0.0.3", "10.0.0.4"]  # two are gone, one is new
        await roster.resolve()
        after = members_of(pool)
        assert list(after) == ["workers@10.0.0.3", "workers@10.0.0.4"]
        assert after["workers@10.0.0.3"] is before["workers@10.0.0.3"]

        addresses.clear()
        await roster.resolve()
        assert members_of(pool) == after  # the name server may be away for a moment
        await roster.close()

    asyncio.run(use())


def test_new_settings_reach_every_address(addresses: list[str]) -> None:
    async def use() -> None:
        addresses[:] = ["10.0.0.1", "10.0.0.2"]
        pool = Pool("model")
        roster = Roster(pool, settings())
        await roster.resolve()
        before = members_of(pool)
        roster.apply(settings(weight=3, tier=1))
        assert members_of(pool) == before
        assert [(member.weight, member.tier) for member in pool.members] == [(3, 1), (3, 1)]
        roster.apply(settings(model="another-model"))
        assert not set(members_of(pool).values()) & set(before.values())  # another model has to be checked first
        await roster.close()

    asyncio.run(use())
