"""HTTP as bytes on a socket: what no client library would send."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

BODY = b'{"query": "apples", "documents": ["pears", "apples"]}'


@contextmanager
def connected(url: str, timeout: float = 20) -> Iterator[socket.socket]:
    """A connection to a server."""
    address = httpx2.URL(url)
    with socket.create_connection((address.host, address.port or 80), timeout=timeout) as raw:
        yield raw


def call(
    key: str = "", *headers: str, body: bytes = BODY, path: str = "/v1/rerank", length: int | None = None
) -> bytes:
    """The bytes of a rerank call."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Authorization: Bearer {key}"]
    lines += [f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def read_answers(raw: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """(status, body) of so many answers on a connection, and nothing behind them within a moment."""
    data = b""
    answers: list[tuple[int, bytes]] = []
    while len(answers) < count:
        while b"\r\n\r\n" not in data:
            data += _more(raw)
        head, _, data = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 100:
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        while len(data) < length:
            data += _more(raw)
        answers.append((status, data[:length]))
        data = data[length:]
    assert data == b""
    raw.settimeout(0.1)
    try:
        assert raw.recv(1) == b""
    except TimeoutError:
        pass
    return answers


def read_to_the_end(raw: socket.socket) -> bytes:
    """Until the server hangs up."""
    data = b""
    while more := raw.recv(65536):
        data += more
    return data


def send_slowly(raw: socket.socket, *parts: bytes) -> None:
    """Each part as a packet of its own."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        raw.sendall(part)
        time.sleep(0.02)


def _more(raw: socket.socket) -> bytes:
    data = raw.recv(65536)
    assert data, "the server hung up"
    return data
