"""A connection that is reset while it is made is an unreachable server, on every event loop."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import uvloop

from rerankd import AsyncClient, RemoteUnreachable

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def resetting() -> Iterator[str]:
    """The address of a server that resets each connection as soon as it has accepted it."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:

        def reset() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                accepted.close()

        thread = threading.Thread(target=reset)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(60)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_is_reset_at_once(run: object, resetting: str) -> None:
    async def ask_often() -> list[BaseException | object]:
        async with AsyncClient(resetting, max_retries=0) as client:
            calls = [client.rank("query", ["document"]) for _ in range(400)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

    assert callable(run)
    assert {type(one) for one in run(ask_often())} == {RemoteUnreachable}
