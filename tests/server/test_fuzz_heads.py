"""Any head, encoding and upgrade around a good body: one answer a request, no 5xx, and no body taken for a request."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.raw import BODY, connected, read_answers
from support.server import Server

pytestmark = pytest.mark.slow

ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "identity": lambda body: body,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda body: body,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
}
READ = ("identity", "gzip", "x-gzip", "deflate")

MEANT = ("content-length", "transfer-encoding", "connection", "host", "expect", "content-encoding", "upgrade", "origin")
names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True).filter(lambda name: name.lower() not in MEANT)
values = st.from_regex(r"[\x21-\x7e\x80-\xff]([\x20-\x7e\x80-\xff]{0,40}[\x21-\x7e\x80-\xff])?", fullmatch=True)
upgrades = st.sampled_from(["", "h2c", "websocket", "TLS/1.0", "h2c, websocket", "made-up/9"])
connections = st.sampled_from(["Upgrade", "upgrade, HTTP2-Settings", "keep-alive, Upgrade", "keep-alive"])


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


@given(
    extra=st.lists(st.tuples(names, values), max_size=6),
    upgrade=upgrades,
    connection=connections,
    encoding=st.sampled_from(list(ENCODERS)),
    chunk=st.one_of(st.none(), st.integers(1, 64)),
    split=st.integers(1, 200),
    good=st.booleans(),
)
@settings(
    max_examples=400, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
def test_one_answer_for_each_request(
    embedded_server: Server,
    extra: list[tuple[str, str]],
    upgrade: str,
    connection: str,
    encoding: str,
    chunk: int | None,
    split: int,
    good: bool,
) -> None:
    body = ENCODERS[encoding](BODY if good else BODY[:-1])
    lines = [f"Authorization: Bearer {embedded_server.key}", "Host: x", "Content-Type: application/json"]
    lines += [f"Upgrade: {upgrade}", f"Connection: {connection}"] if upgrade else []
    lines += [f"Content-Encoding: {encoding}"] if encoding != "identity" else []
    lines += ["Transfer-Encoding: chunked"] if chunk else [f"Content-Length: {len(body)}"]
    known = {"authorization", "content-type", "x-request-id", "x-forwarded-prefix"}
    lines += [f"{name}: {value}" for name, value in extra if name.lower() not in known]
    request = "\r\n".join(("POST /v1/rerank HTTP/1.1", *lines, "", "")).encode("latin-1")
    request += chunked(body, chunk) if chunk else body
    with connected(embedded_server.url) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(request[:split])
        raw.sendall(request[split:])
        [(status, content)] = read_answers(raw, 1)
    if encoding not in READ:
        assert status == 415 and encoding.split(",")[0] in content.decode()
    elif good:
        assert status == 200 and json.loads(content)["results"][0]["index"] == 1
    else:
        assert status == 400


@given(st.lists(st.sampled_from(["h2c", "websocket", ""]), min_size=2, max_size=5))
@settings(max_examples=60, derandomize=True, database=None, deadline=None)
def test_upgrades_in_a_row_on_one_connection(embedded_server: Server, wanted: list[str]) -> None:
    requests = b""
    for upgrade in wanted:
        lines = [f"Authorization: Bearer {embedded_server.key}", "Host: x", "Content-Type: application/json"]
        lines += [f"Upgrade: {upgrade}", "Connection: Upgrade"] if upgrade else []
        head = "\r\n".join(("POST /v1/rerank HTTP/1.1", *lines, f"Content-Length: {len(BODY)}", "", ""))
        requests += head.encode() + BODY
    with connected(embedded_server.url) as raw:
        raw.sendall(requests)
        assert [status for status, _ in read_answers(raw, len(wanted))] == [200] * len(wanted)
