"""What a program shares between calls of an `AsyncClient`: places for requests, and what the server says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from rerankd import AsyncClient
from rerankd.client.bounded import MAX_STATUS_BYTES
from rerankd.client.errors import RemoteReplyInvalid, RemoteTimeout, RemoteUnreachable
from support.fake_server import QUERY, StandIn

Respond = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def test_calls_share_the_places_that_they_are_given() -> None:
    async def use() -> int:
        slots = asyncio.Semaphore(2)
        with StandIn() as server:
            async with AsyncClient(server.url, max_documents=1) as client:
                texts = [str(number) for number in range(10)]
                rankings = await asyncio.gather(*[client.rank(QUERY, texts, slots=slots) for _ in range(4)])
            assert all(len(ranking) == 10 for ranking in rankings)
            assert len(server.requests) == 40
            return server.most_at_once

    assert asyncio.run(use()) <= 2


@asynccontextmanager
async def listening(respond: Respond) -> AsyncIterator[str]:
    """A server that reads the head of one request a connection, and responds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await respond(await reader.readuntil(b"\r\n\r\n"), writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    answering: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(
        lambda *streams: answering.add(asyncio.create_task(serve(*streams))), "127.0.0.1"
    )
    host, port = server.sockets[0].getsockname()
    yield f"http://{host}:{port}"
    server.close()
    await asyncio.gather(*answering)


def test_a_path_is_asked_from_the_root_of_the_server() -> None:
    heads: list[bytes] = []

    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 503 Loading\r\ncontent-length: 2\r\n\r\n{}")

    async def use() -> None:
        async with listening(respond) as url, AsyncClient(f"{url}/prefix/v1/rerank?key=1", "secret") as client:
            assert await client.get("/health", timeout_s=5, headers={"x-rerankd-hop": "1"}) == (503, b"{}")

    asyncio.run(use())
    [head] = heads
    assert head.startswith(b"GET /health HTTP/1.1\r\n")
    assert b"authorization: Bearer secret" in head and b"x-rerankd-hop: 1" in head


def test_a_server_that_does_not_say_how_it_is_is_reported() -> None:
    async def drips(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b".")
            await asyncio.sleep(0.02)

    async def floods(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"." * (MAX_STATUS_BYTES + 1))

    async def use(respond: Respond, error: type[Exception], match: str) -> None:
        async with listening(respond) as url, AsyncClient(url) as client:
            with pytest.raises(error, match=match):
                await client.get("/health", timeout_s=0.2 if respond is drips else 20)

    asyncio.run(use(drips, RemoteTimeout, "did not answer in time: no answer to GET /health after 0.2 s"))
    asyncio.run(use(floods, RemoteReplyInvalid, "more than 1000000 bytes"))


def test_a_server_that_is_gone_is_reported() -> None:
    async def use() -> None:
        async with listening(lambda head, writer: asyncio.sleep(0)) as url:
            pass
        async with AsyncClient(url) as client:
            with pytest.raises(RemoteUnreachable, match="cannot be reached"):
                await client.get("/health", timeout_s=5)

    asyncio.run(use())
