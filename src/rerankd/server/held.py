"""What a server keeps in memory for its callers: bodies of running calls, and replies that are not read yet.

Knows sizes only. `Holding` gives each request its share, and gives the memory of large ones back to the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes

from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import Busy

SMALL_BODY = 64 * 1024
"""Bytes. So much of a body is always read: the refusal of a small call would cost as much as its answer."""

LARGE_BODY = 4_000_000
"""Bytes. The C library keeps what such a call has freed, unless it is told to give it back."""

TRIM_S = 1.0
"""Seconds between the end of such a call and giving back: others that end meanwhile are given back with it."""

_SHARE = "rerankd.held"
"""Key of a request's scope."""


class HeldBytes:
    """The bytes of bodies that are being read or worked on, and of replies that nobody has read yet.

    Args:
        most: bytes, of all calls together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.turns = asyncio.Lock()
        self._bodies = 0
        self._unread: dict[object, int] = {}

    @property
    def total(self) -> int:
        """Bytes held now."""
        return self._bodies + sum(self._unread.values())

    def unread(self, connection: object, size: int) -> None:
        """Notes how many bytes of its replies a connection has not read."""
        if size:
            self._unread[connection] = size
        else:
            self._unread.pop(connection, None)

    def body(self) -> HeldBody:
        """The body of one more call."""
        return HeldBody(self)

    def add(self, size: int) -> None:
        """Counts bytes of a body; negative: they are freed."""
        self._bodies += size


class HeldBody:
    """The share of one call, until `free`."""

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self._size = 0
        self.num_documents = 0  # known once the body is parsed

    def expect(self, size: int) -> None:
        """Raises Busy if a body of this size has no room now."""
        self._need(size, size)

    def add(self, size: int) -> None:
        """Counts bytes that have come.

        Raises:
            Busy: they have no room.
        """
        self._need(size, self._size + size)
        self._size += size
        self._held.add(size)

    async def take_turn(self) -> None:
        """Lets the server's loop go round once. Large bodies do so one after the other: however many arrive at the
        same time, small calls wait for one chunk of one of them."""
        async with self._held.turns:
            await asyncio.sleep(0)

    def free(self) -> None:
        """The call has ended."""
        self._held.add(-self._size)
        self._size = 0

    def _need(self, more: int, whole: int) -> None:
        if whole > SMALL_BODY and self._held.total + more > self._held.most:
            raise Busy(
                f"The server holds {self._held.most // 1_000_000} MB of requests and replies, as much as it may "
                "(--max-held-mb). Try again later, or send the documents in smaller requests.",
                retry_after_s=2,
            )

    @property
    def size(self) -> int:
        """Bytes that are held for this call."""
        return self._size


class Holding:
    """ASGI middleware: every request has a `HeldBody`, which is freed when it ends."""

    def __init__(self, app: ASGIApp, held: HeldBytes) -> None:
        self._app, self._held = app, held
        self._trimming: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        share = scope[_SHARE] = self._held.body()
        try:
            await self._app(scope, receive, send)
        finally:
            if share.size > LARGE_BODY and (self._trimming is None or self._trimming.done()):
                self._trimming = asyncio.create_task(_give_back_soon())
            share.free()


async def _give_back_soon() -> None:
    """Allocating memory waits while memory is given back, in every thread: so not after each call."""
    await asyncio.sleep(TRIM_S)
    await asyncio.to_thread(_give_back)


def share_of(scope: Scope) -> HeldBody:
    """What is held for a request."""
    share: HeldBody = scope[_SHARE]
    return share


def _give_back() -> None:
    with contextlib.suppress(OSError, AttributeError):  # only the GNU library can
        ctypes.CDLL(None).malloc_trim(0)
