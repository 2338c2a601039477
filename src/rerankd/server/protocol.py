"""HTTP/1 by uvicorn, with what uvicorn lacks: bounds, time limits, `Upgrade` ignored, callers that half-close.

Knows bytes, connections and heads; no path and no body. uvicorn's other implementation (`h11`) bounds the head only.
tests/server/test_uvicorn.py tests every part of uvicorn's class that this module uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rerankd.server.connections import Connections
from rerankd.server.held import HeldBytes

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of a request line and headers that are not complete; one read of the socket may come on top."""

MAX_TARGET_BYTES = 8 * 1024
"""Bytes of the address in a request line; nginx has the same limit."""

MAX_UNREAD_BYTES = 1_000_000
"""Bytes of a body that arrives after its request was answered. Less is read and dropped, and the connection is kept."""

HEAD_S = 30
"""Seconds for a connection's first head, and for every further head from its first byte on."""

WRITE_S = 20
"""Seconds in which a caller has to read MIN_READ_BYTES of its reply; otherwise the connection is closed."""

MIN_READ_BYTES = 64 * 1024

LOOK_S = 0.25
"""Seconds between two checks whether a caller that half-closed its connection is still there."""

TCP_CLOSE = 7
"""A state of Linux's TCP."""

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

NOT_HTTP = "This is not a valid HTTP request."


class BoundedHTTP(HttpToolsProtocol):
    """One connection.

    Args:
        connections: all of the server's.
        held: bytes that the server keeps for its callers.
        more: uvicorn's own.
    """

    def __init__(self, *, connections: Connections, held: HeldBytes, **more: Any) -> None:
        super().__init__(**more)
        self._all, self._held = connections, held
        self._head_bytes = 0
        self._unread_bytes = 0
        self._advanced = False
        self._broken = ""  # why no further request can be read
        self._half_closed = False
        self._head_timer: TimerHandle | None = None
        self._write_timer: TimerHandle | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()
        if not self._all.opened(self):
            self._refuse(503, "There are too many connections. Try again later.", "retry-after: 5\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.closed(self)
        self._held.unread(self, 0)
        for timer in (self._head_timer, self._write_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            self._unread_bytes += len(data)
        else:
            self._feed(data)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.transport.close()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's never keeps it open
        """Keeps a half-closed connection open for its answer. A probe detects a caller that is gone.

        Not over TLS, where asyncio does not allow it, nor in HTTP/1.0, which has no interim answer to probe with.
        """
        if not self._is_answering or self.cycle.more_body or self.scheme == "https":
            return None
        if self.scope["http_version"] == "1.0":
            return None
        self._half_closed = True
        if not self.cycle.response_started and not self.pipeline:
            self.transport.write(INTERIM)
        self._look_for_caller()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._held.unread(self, 0)

    def shutdown(self) -> None:
        super().shutdown()
        self._await_reader()

    def give_way(self) -> None:
        """Closes this idle connection to make room for another."""
        if not self.transport.is_closing():
            self.transport.close()

    # Called by the parser.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        self._await_head()

    def on_headers_complete(self) -> None:
        if self._is_foreign_upgrade():
            return
        self._advanced, self._unread_bytes = True, 0
        self._cancel_head_timer()
        self._all.busy(self)
        own, refusal = self.app, self._fault_of_head()
        self.app = refusal or own
        try:
            super().on_headers_complete()
        finally:
            self.app = own

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_foreign_upgrade():
            return
        self._advanced = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_reader()
        if self.transport.is_closing() or self._is_answering:
            return
        if self._broken:
            self._refuse(400, self._broken)
        elif self._half_closed:
            self.transport.close()
        else:
            self._all.idle(self)

    # Heads.

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_foreign_upgrade(self) -> bool:
        """Whether the head asks for another protocol. RFC 9110 lets a server ignore it."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _feed(self, data: bytes) -> None:
        self._advanced = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._give_up(NOT_HTTP)
        self._head_bytes = 0 if self._advanced else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "The request line and the headers are too large: at most 64 KB.")

    def _parse(self, data: bytes) -> None:
        """Feeds the parser. Where it stops for an upgrade, a new parser reads the same head without the upgrade."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                if self.parser.get_method() == b"CONNECT":
                    return
                data = self._head_without_upgrade() + data[stop.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b" ".join((self.parser.get_method(), self.url, b"HTTP/" + version))]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(one for one in value.split(b",") if one.strip().lower() != b"upgrade")
            if value and name not in (b"upgrade", b"http2-settings"):
                lines.append(name + b": " + value)
        return b"\r\n".join((*lines, b"", b""))

    def _fault_of_head(self) -> Callable[..., Any] | None:
        """The application that refuses a faulty head; None for a correct head."""
        if len(self.url) > MAX_TARGET_BYTES:
            self.url = self.url[:200]  # short enough for a log
            return _Refusal(414, f"The address is too long: at most {MAX_TARGET_BYTES} bytes.")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            found = "two 'Host' headers" if hosts else "no 'Host' header"
            return _Refusal(400, f"The request has {found}: send one.")
        return None

    def _give_up(self, why: str) -> None:
        """Reads nothing more. Complete requests that came before are answered first."""
        self._broken = why
        if not self._is_answering or (self.cycle.more_body and not self.cycle.response_started):
            self._refuse(400, why)

    def _refuse(self, status: int, text: str, headers: str = "") -> None:
        """Sends an error where there is no request to answer, and closes the connection."""
        if self.transport.is_closing():
            return
        body = f"{text}\n".encode()
        head = f"content-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}\r\n{headers}"
        self.transport.write(STATUS_LINE[status] + f"{head}connection: close\r\n\r\n".encode() + body)
        self.transport.close()

    # Time limits.

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_answering:  # half of the next head came behind a request that still runs
            self._broken = f"The head did not arrive within {HEAD_S} s."
        elif self._head_bytes:
            self._refuse(408, f"The head did not arrive within {HEAD_S} s.")
        else:
            self.transport.close()

    def _await_reader(self) -> None:
        if self._write_timer is None and (size := self.transport.get_write_buffer_size()):
            self._held.unread(self, size)
            self._write_timer = self.loop.call_later(WRITE_S, self._look_at_reader, size)

    def _look_at_reader(self, before: int) -> None:
        self._write_timer = None
        left = self.transport.get_write_buffer_size()
        if left > before - MIN_READ_BYTES and left:
            self.transport.abort()
        else:
            self._held.unread(self, 0)
            self._await_reader()

    def _look_for_caller(self) -> None:
        if not self._is_answering or self.transport.is_closing():
            return
        if _is_gone(self.transport):
            self.transport.abort()
        else:
            self.loop.call_later(LOOK_S, self._look_for_caller)


class _Refusal:
    """An ASGI application that answers one request with one sentence."""

    def __init__(self, status: int, text: str) -> None:
        self._status = status
        self._body = f"{text}\n".encode()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(self._body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def _is_gone(transport: asyncio.Transport) -> bool:
    """Whether the caller has reset the connection. asyncio does not report it while nothing is read or written."""
    fd = transport.get_extra_info("socket").fileno()
    with contextlib.suppress(OSError, AttributeError), socket.socket(fileno=os.dup(fd)) as view:
        if view.family in (socket.AF_INET, socket.AF_INET6):
            info = view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            return bool(struct.unpack("B", info)[0] == TCP_CLOSE)
    return False
