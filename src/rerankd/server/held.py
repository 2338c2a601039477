"""Bounds the memory that callers occupy: bodies of running calls, and replies that they have not read.

Knows sizes only. The middleware `Holding` counts each request, and returns freed memory to the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes

from starlette.types import ASGIApp, Receive, Scope, Send

from rerankd.errors import Busy

SMALL_BODY = 64 * 1024
"""Bytes. A body of this size is always read: refusing a small call costs as much as answering it."""

LARGE_BODY = 4_000_000
"""Bytes of a body. After such a call the C library is asked to return freed memory to the system."""

TRIM_S = 1.0
"""Seconds between the end of such a call and the return. It serves all calls that end meanwhile."""

_SHARE = "rerankd.held"
"""Key in a request's scope."""


class HeldBytes:
    """Counts the bytes of bodies in work and of unread replies.

    Args:
        most: bytes, of all calls together.

    Attributes:
        turns: see `HeldBody.take_turn`.
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
        """Records how many bytes of its replies a connection has not read."""
        if size:
            self._unread[connection] = size
        else:
            self._unread.pop(connection, None)

    def body(self) -> HeldBody:
        """Begins to count a new call."""
        return HeldBody(self)

    def add(self, size: int) -> None:
        """Counts bytes of a body; a negative number frees them."""
        self._bodies += size


class HeldBody:
    """Counts one call, until `free`.

    Attributes:
        num_documents: 0 until the body is parsed.
    """

    def __init__(self, held: HeldBytes) -> None:
        self._held = held
        self._size = 0
        self.num_documents = 0

    def expect(self, size: int) -> None:
        """Raises Busy if there is no room for a body of this size now."""
        self._need(size, size)

    def add(self, size: int) -> None:
        """Counts bytes that have arrived.

        Raises:
            Busy: there is no room for them.
        """
        self._need(size, self._size + size)
        self._size += size
        self._held.add(size)

    async def take_turn(self) -> None:
        """Waits for one round of the server's event loop. Large bodies do so one after the other: however many arrive
        at the same time, a small call waits for one chunk of one of them."""
        async with self._held.turns:
            await asyncio.sleep(0)

    def free(self) -> None:
        """Ends the counting: the call has ended."""
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
        """Bytes that this call occupies."""
        return self._size


class Holding:
    """ASGI middleware that gives every request a `HeldBody` and frees it at the end."""

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
    """Every thread that allocates memory waits while memory is returned: so it is not done after each call."""
    await asyncio.sleep(TRIM_S)
    await asyncio.to_thread(_give_back)


def share_of(scope: Scope) -> HeldBody:
    """The `HeldBody` of a request."""
    share: HeldBody = scope[_SHARE]
    return share


def _give_back() -> None:
    with contextlib.suppress(OSError, AttributeError):  # only the GNU library can
        ctypes.CDLL(None).malloc_trim(0)
