"""Cancelled calls leave nothing behind: neither a connection nor its place in the pool."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from rerankd import AsyncClient
from support.fake_server import DOCUMENTS, QUERY, ranking_of

MOST_TURNS = 12
SIZE = 100
"""Calls in each of two groups."""

PATIENCE_S = 300


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
    """Cancels calls that wait for their reply, and so many turns of the event loop later calls that connect."""
    arrived = server.num_slow + SIZE
    calls = [asyncio.create_task(client.rank("slow", DOCUMENTS)) for _ in range(2 * SIZE)]
    while server.num_slow < arrived:
        await asyncio.sleep(0.01)
    for call in calls[:SIZE]:
        call.cancel()
    for _ in range(num_turns):
        await asyncio.sleep(0)
    for call in calls[SIZE:]:
        call.cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)


def test_a_client_answers_after_calls_were_cancelled_while_they_connected() -> None:
    """With a limit of connections, httpx 0.28.1 (httpcore 1.0.9) never frees the place of a call cancelled then."""

    async def use() -> None:
        server = Server()
        listening = await asyncio.start_server(server.accept, "127.0.0.1", backlog=SIZE)
        host, port = listening.sockets[0].getsockname()
        async with asyncio.timeout(PATIENCE_S), AsyncClient(f"http://{host}:{port}") as client:
            for num_turns in range(MOST_TURNS):
                await _cancel_calls(client, server, num_turns)
            rankings = await asyncio.gather(*[client.rank(QUERY, DOCUMENTS) for _ in range(SIZE)])
        assert all(len(ranking) == len(DOCUMENTS) for ranking in rankings)
        listening.close()
        await server.wait_until_closed()

    asyncio.run(use())
