"""HTTP as uvicorn speaks it, with bounds where it has none: on what comes before a body, and after a reply."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Of a request line and headers that are not complete; as much as is read at once may come on top."""

MAX_UNREAD_BYTES = 1_000_000
"""Of a body that comes although its request is answered. Less is read and dropped, so that the connection can stay."""

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHTTP(HttpToolsProtocol):
    """One connection. Hangs up on who sends headers without end, or goes on with a body that was refused."""

    _head_bytes = 0
    _unread_bytes = 0
    _advanced = False

    def data_received(self, data: bytes) -> None:
        self._advanced = False
        super().data_received(data)
        self._head_bytes = 0 if self._advanced else self._head_bytes + len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()
        if self._unread_bytes > MAX_UNREAD_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._advanced, self._unread_bytes = True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._advanced = True
        super().on_message_complete()
