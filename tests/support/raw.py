"""HTTP as bytes on a socket: what no client library would send."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from support.waiting import wait_until

TABLE, ESTABLISHED = Path("/proc/net/tcp"), "01"
"""Of connections, as Linux has it."""

BODY = b'{"query": "apples", "documents": ["pears", "apples"]}'


@contextmanager
def connected(url: str, timeout: float = 60) -> Iterator[socket.socket]:
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


def wait_until_read(raw: socket.socket) -> None:
    """Until the server, on this machine and over IPv4, has read what was sent."""
    if TABLE.exists():
        wait_until(lambda: _row_of_server(raw)[-1:] == ["00000000"])
    time.sleep(0.1)  # all there is on other systems


def wait_until_closed(raw: socket.socket) -> None:
    """Until the server, on this machine and over IPv4, has closed its side, whoever still has to read."""
    if TABLE.exists():
        wait_until(lambda: _row_of_server(raw)[:1] != [ESTABLISHED])
    else:
        time.sleep(4)


def _row_of_server(raw: socket.socket) -> list[str]:
    """[state, bytes that it has not read]; empty where the kernel knows its side no more."""
    try:
        names = [_in_table(*raw.getpeername()), _in_table(*raw.getsockname())]
    except OSError:  # it is not connected any more
        return []
    rows = (line.split() for line in TABLE.read_text().splitlines())
    return next(([row[3], row[4].partition(":")[2]] for row in rows if row[1:3] == names), [])


def _in_table(host: str, port: int) -> str:
    [address] = struct.unpack("=I", socket.inet_aton(host))
    return f"{address:08X}:{port:04X}"


def _more(raw: socket.socket) -> bytes:
    data = raw.recv(65536)
    assert data, "the server hung up"
    return data
