"""Cancelled calls leave nothing behind: neither a connection nor its place in the pool."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from rerankd import AsyncClient
from rerankd.client.connections import LIMITS
from support.fake_server import DOCUMENTS, QUERY, ranking_of

MOST_TURNS = 12
PATIENCE_S = 60


class Server:
    """Answers a ranking, but to the query "slow" nothing. num_slow: the slow requests that have arrived."""

    def __init__(self) -> None:
        self.num_slow = 0
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.create_task(self._serve(reader, writer)))

    async def wait_until_closed(self) -> None:
        """Waits until the client has closed every connection."""
        await asyncio.gather(*self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split()[0])
                body = json.loads(await reader.readexactly(length))
                if body["query"] == "slow":
                    self.num_slow += 1
                    continue
                reply = json.dumps(ranking_of(body).body).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(reply), reply))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _cancel_calls(client: AsyncClient, server: Server, num_turns: int) -> None:
    """Cancels calls that have a connection, and calls that wait for one so many turns of the event loop later.

    Each of the first gives its place in the pool to one of the others, which is cancelled before it uses it.
    """
    assert LIMITS.max_connections
    arrived = server.num_slow + LIMITS.max_connections
    calls = [asyncio.create_task(client.rank("slow", DOCUMENTS)) for _ in range(2 * LIMITS.max_connections)]
    while server.num_slow < arrived:
        await asyncio.sleep(0.01)
    for call in calls[: LIMITS.max_connections]:
        call.cancel()
    for _ in range(num_turns):
        await asyncio.sleep(0)
    for call in calls[LIMITS.max_connections :]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


def test_a_client_answers_after_calls_were_cancelled_while_they_waited_for_a_connection() -> None:
    """httpx 0.28.1 (httpcore 1.0.9) never frees the place in the pool of a call that is cancelled then."""

    async def use() -> None:
        size = LIMITS.max_connections
        assert size
        server = Server()
        listening = await asyncio.start_server(server.accept, "127.0.0.1", backlog=size)
        host, port = listening.sockets[0].getsockname()
        async with asyncio.timeout(PATIENCE_S), AsyncClient(f"http://{host}:{port}") as client:
            for num_turns in range(MOST_TURNS):
                await _cancel_calls(client, server, num_turns)
            rankings = await asyncio.gather(*[client.rank(QUERY, DOCUMENTS) for _ in range(size)])
        assert all(len(ranking) == len(DOCUMENTS) for ranking in rankings)
        listening.close()
        await server.wait_until_closed()

    asyncio.run(use())
