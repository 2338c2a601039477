"""Bodies that are packed, huge in the making, slow, or too many at once; and who else is answered meanwhile."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import random
import socket
import time
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from rerankd.apis.errors import NotJSON
from rerankd.errors import Busy, InvalidRequest
from rerankd.server import body as body_module
from rerankd.server import json_text
from rerankd.server.connections import Connections
from rerankd.server.held import SMALL_BODY, HeldBytes
from rerankd.server.json_text import MAX_DEPTH, MAX_VALUES, check_bounds, measure
from support.raw import BODY, call, connected, wait_until_closed
from support.server import Server, StartServer
from support.surfaces import ONE_EACH, SHARED, Surface

JSON_TYPE = {"content-type": "application/json"}


def deflated(data: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(data) + packer.flush()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "deflate": zlib.compress,
    "Deflate": lambda data: deflated(data, -15),
    "identity": bytes,
}


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_packed_bodies_are_read(surface: Surface, embedded_server: Server) -> None:
    content = json.dumps(surface.body()).encode().ljust(500_000)
    for name, pack in PACKED.items():
        headers = {**JSON_TYPE, "content-encoding": name}
        response = embedded_server.post(surface.path, content=pack(content), headers=headers)
        assert len(surface.scores(response)) == 3, name


@pytest.mark.parametrize("surface", SHARED, ids=str)
@pytest.mark.parametrize("name", ["br", "zstd", "gzip, gzip", "compress"])
def test_other_encodings_are_refused_by_name(name: str, surface: Surface, embedded_server: Server) -> None:
    headers = {**JSON_TYPE, "content-encoding": name}
    response = embedded_server.post(surface.path, content=b"\x1f\x8b", headers=headers)
    told = surface.error(response, 415)
    assert name in told and "gzip" in told
    assert response.headers["accept-encoding"] == "gzip, deflate"


def test_tokenize_reads_packed_bodies_too(embedded_server: Server) -> None:
    content = gzip.compress(b'{"prompt": "hello"}')
    assert embedded_server.post("/tokenize", content=content, headers={"content-encoding": "gzip"}).json()["count"] > 0
    refused = embedded_server.post("/tokenize", content=content, headers={"content-encoding": "br"})
    assert refused.status_code == 415 and "br" in refused.json()["error"]["message"]


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_packed_bodies_that_are_wrong(surface: Surface, embedded_server: Server) -> None:
    good = gzip.compress(json.dumps(surface.body()).encode())
    bomb = gzip.compress(gzip.compress(b"\0" * 1_000_000) * 10 + b"\0" * 100_000_000, 9)
    for content, words in {good[:-9]: "ends in the middle", b"{}": "is not gzip", bomb: "64 MB"}.items():
        headers = {**JSON_TYPE, "content-encoding": "gzip"}
        response = embedded_server.post(surface.path, content=content, headers=headers)
        surface.error(response, response.status_code)
        assert 400 <= response.status_code < 500 and words in response.text


def nested(depth: int, pair: str = "[]") -> str:
    return pair[:-1] * depth + pair[-1] * depth


def test_bounds_of_json() -> None:
    texts = ("[1, [2, {}]]", '"[[[[\\"[[["', json.dumps(["," * 2_000_000, "[" * 2_000_000, '\\"[' * 500_000]))
    for text in (*texts, nested(MAX_DEPTH), json.dumps([0] * (MAX_VALUES - 2))):
        check_bounds(text.encode())
    for text in (nested(MAX_DEPTH + 1), nested(100_000, '{"a":}'), "[[]," * 1000):
        with pytest.raises(NotJSON, match="nested too deeply"):
            check_bounds(text.encode())
    many: list[list[Any]] = [[0] * (MAX_VALUES + 1), [[]] * (MAX_VALUES + 1), [{"a": ["\\\\", '"']}] * 400_000]
    for value in many:
        with pytest.raises(NotJSON, match=str(MAX_VALUES)):
            check_bounds(json.dumps(value).encode())


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 18])
def test_values_and_depth_are_counted_right(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "PIECE", piece)
    chance = random.Random(0)
    for _ in range(400):
        value = _any_value(chance, chance.randrange(12))
        text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
        monkeypatch.setattr(json_text, "MAX_DEPTH", chance.randrange(12))
        *_, (num_values, too_deep) = measure(text.encode())
        assert too_deep == (_depth(value) > json_text.MAX_DEPTH)
        # An empty container counts as if it held one value.
        assert _count(value) <= num_values <= _count(value) + _containers(value)


def test_counting_stops_at_the_first_bound() -> None:
    assert len(list(zip(measure(b"[]," * 5_000_000), range(3), strict=False))) == 3  # lazily, piece by piece
    with pytest.raises(NotJSON, match="more than 1000000 values"):
        check_bounds(b"[" + b"[]," * 5_000_000)


def _any_value(chance: random.Random, depth: int) -> Any:
    texts = ["", '"', "\\", "[{,]}", '\\"', "\\\\", "é\n"]
    if not depth:
        return chance.choice([*texts, 0, 1.5, None])
    inner = [_any_value(chance, chance.randrange(depth)) for _ in range(chance.randrange(4))]
    return inner if chance.random() < 0.5 else {chance.choice(texts) + str(i): one for i, one in enumerate(inner)}


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


def _containers(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + sum(map(_containers, inner))


def test_large_bodies_are_read_one_chunk_a_round_of_the_loop() -> None:
    """However many arrive at the same time: what a small call waits for is one chunk."""
    held, rounds, chunks = HeldBytes(10**9), [0], []

    async def read(count: int) -> None:
        left = iter(range(count))

        async def receive() -> dict[str, Any]:
            place = next(left)
            chunks.append(rounds[0])
            return {"type": "http.request", "body": b" " * 300_000, "more_body": place < count - 1}

        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "rerankd.held": held.body()}
        with pytest.raises(InvalidRequest, match="empty"):
            await body_module.read_json(Request(scope, receive), 64, json_only=False)

    async def count_rounds() -> None:
        while True:
            rounds[0] += 1
            await asyncio.sleep(0)

    async def all_at_once() -> None:
        counting = asyncio.ensure_future(count_rounds())
        await asyncio.gather(*(read(20) for _ in range(8)))
        counting.cancel()

    asyncio.run(all_at_once())
    after_the_first = chunks[8:]
    assert max(after_the_first.count(one) for one in set(after_the_first)) <= 2


@pytest.mark.parametrize("surface", ONE_EACH, ids=str)
def test_numbers_and_depths_that_could_not_be_written_again(surface: Surface, embedded_server: Server) -> None:
    for value in ("1e999", "-1e999", "1" + "0" * 400 + ".0", nested(MAX_DEPTH), nested(500), nested(960), "NaN"):
        text = json.dumps(surface.body(documents=["a"]))[:-1] + f', "extra": {value}}}'
        told = surface.error(embedded_server.post(surface.path, content=text, headers=JSON_TYPE), 400)
        assert value[:10] in told or "nested too deeply" in told
    for value in ("1e308", "1e-999", nested(MAX_DEPTH - 2)):
        text = json.dumps(surface.body(documents=["a"]))[:-1] + f', "extra": {value}}}'
        surface.scores(embedded_server.post(surface.path, content=text, headers=JSON_TYPE))


def test_millions_of_lists_are_refused_before_they_are_made(embedded_server: Server) -> None:
    content = b'{"query": "a", "documents": ["b"], "extra": [' + b"[]," * 5_300_000 + b"[]]}"
    before = _memory(embedded_server)
    Path(f"/proc/{embedded_server.process.pid}/clear_refs").write_text("5")  # forgets the peak before
    response = embedded_server.post("/v1/rerank", content=content, headers=JSON_TYPE)
    assert response.status_code == 400 and str(MAX_VALUES) in response.text
    assert _memory(embedded_server, "VmHWM") < before + 200  # the lists alone would be 300 MB and more


def test_what_a_large_call_took_is_given_back(embedded_server: Server) -> None:
    def large() -> None:
        content = json.dumps({"query": "a", "documents": ["b"], "extra": ["x" * 900] * 60_000})
        assert embedded_server.post("/v1/rerank", content=content, headers=JSON_TYPE).status_code == 200

    large()
    time.sleep(0.5)
    before = _memory(embedded_server)
    for _ in range(3):
        large()
    # Each call takes some 200 MB while it runs; how much of it the allocator returns at once, varies.
    embedded_server.wait_until(lambda: _memory(embedded_server) < before + 100)


def _memory(server: Server, field: str = "VmRSS") -> float:
    with open(f"/proc/{server.process.pid}/status") as file:
        return next(int(line.split()[1]) / 1000 for line in file if line.startswith(field))


def test_a_failed_calls_body_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi.testclient import TestClient

    from rerankd.app import create_app
    from rerankd.config import ServerSettings
    from rerankd.server.models import Models
    from rerankd.server.served import ServedModel
    from support.fakes import NumberedModel, scorer_of

    class Body(dict[str, Any]):
        """One that can be watched."""

    seen: list[weakref.ref[Body]] = []
    parse = json_text.parse

    def watched(raw: list[bytes]) -> Any:
        value, warnings = parse(raw)
        body = Body(value)
        seen.append(weakref.ref(body))
        return body, warnings

    monkeypatch.setattr(body_module, "parse", watched)
    app = create_app(ServerSettings(), Models(ServedModel(lambda _: scorer_of(NumberedModel()))))
    with TestClient(app) as client:
        while client.get("/health").status_code != 200:
            time.sleep(0.01)
        gc.collect()
        gc.disable()
        wrong: list[dict[str, Any]] = [
            {"query": 5},
            {"query": "a", "documents": ["b"], "model": "none"},
            {"documents": []},
        ]
        try:
            for body in wrong:
                assert client.post("/v1/rerank", json=body).status_code in (400, 404)
        finally:
            gc.enable()
    assert len(seen) == 3 and [one() for one in seen] == [None] * 3


# Slow ones. The windows are made short, in a process of their own.

QUICK = "import rerankd.server.body as b, rerankd.server.protocol as p; b.WINDOW_S = 2; p.HEAD_S = p.WRITE_S = 1; "


@pytest.fixture(scope="module")
def quick_server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Waits 1 or 2 s where others wait 20 to 30; holds at most 5 MB."""
    import os
    import sys

    folder = tmp_path_factory.mktemp("quick")
    (folder / "sitecustomize.py").write_text(f"{QUICK}\n")
    path = os.pathsep.join((str(folder), *filter(None, sys.path)))
    options = ("--model", "embedded", "--max-body-mb", "60", "--max-held-mb", "5")
    return start_server(*options, env={**os.environ, "PYTHONPATH": path})


def test_who_says_nothing_is_hung_up_on(quick_server: Server) -> None:
    for sent in (b"", b"\r\n", b"POST /v1/rerank HTTP/1.1\r\nHo"):
        with connected(quick_server.url, timeout=60) as raw:
            raw.sendall(sent)
            answer = raw.recv(1000)
            assert answer == b"" if not sent else answer.startswith(b"HTTP/1.1 408 ")
    with connected(quick_server.url, timeout=60) as raw:  # also behind a call
        raw.sendall(call() + b"POST ")
        assert read_answers_then_end(raw)[:1] == [200]  # and an end


def read_answers_then_end(raw: socket.socket) -> list[int]:
    data = b""
    while more := raw.recv(65536):
        data += more
    return [int(line.split()[1]) for line in data.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] or [
        int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]
    ]


@pytest.mark.parametrize("every_s", [0.3, 5])
def test_a_body_that_comes_too_slowly(every_s: float, quick_server: Server) -> None:
    """Byte by byte, or not at all: the same end."""
    with connected(quick_server.url, timeout=0.1) as raw:
        raw.sendall(call(body=BODY).replace(b"Content-Length: ", b"Content-Length: 9"))
        answer = b""
        for _ in range(600):
            try:
                answer = raw.recv(1000)
                break
            except TimeoutError:
                if every_s < 1:
                    raw.sendall(b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_unfinished_bodies_are_bounded_together(quick_server: Server) -> None:
    first = [socket.create_connection(_address(quick_server)) for _ in range(6)]
    try:
        statuses = []
        for raw in first:
            raw.sendall(
                call(body=b" " * 10).replace(b"Content-Length: 10", b"Content-Length: 4000000") + b" " * 1_500_000
            )
        small = httpx2.post(f"{quick_server.url}/v1/rerank", json={"query": "a", "documents": ["b"]}, timeout=60)
        assert small.status_code == 200
        for raw in first:
            raw.settimeout(60)
            statuses.append(raw.recv(1000)[:12])
        assert b"HTTP/1.1 503" in statuses and set(statuses) <= {b"HTTP/1.1 503", b"HTTP/1.1 408"}
    finally:
        for raw in first:
            raw.close()
    again = httpx2.post(f"{quick_server.url}/v1/rerank", content=BODY.ljust(4_000_000), headers=JSON_TYPE, timeout=60)
    assert again.status_code == 200


def test_replies_that_nobody_reads_do_not_hold_up_the_end(quick_server: Server) -> None:
    documents = ["x" * 160] * 10_000
    body = json.dumps({"query": "a", "documents": documents, "return_documents": True}).encode()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(_address(quick_server))
        with suppress(ConnectionError):  # hung up on already
            raw.sendall(call(body=body, path="/v1/rerank") * 8)
        quick_server.wait_until(lambda: "documents=10000" in "".join(quick_server.log))
        wait_until_closed(raw)  # before the end of the first reply


def _address(server: Server) -> tuple[str, int]:
    url = httpx2.URL(server.url)
    assert url.port
    return url.host, url.port


def test_small_bodies_are_read_when_the_rest_is_full() -> None:
    held = HeldBytes(1_000_000)
    first, second = held.body(), held.body()
    first.add(1_000_000)
    second.add(SMALL_BODY)
    with pytest.raises(Busy):
        second.add(1)
    with pytest.raises(Busy):
        held.body().expect(SMALL_BODY + 1)
    held.unread("a connection", 5_000)
    assert held.total == 1_000_000 + SMALL_BODY + 5_000
    held.unread("a connection", 0)
    first.free()
    second.add(1)
    second.free()
    assert held.total == 0


def test_the_longest_idle_connection_gives_way() -> None:
    class Connection:
        closed = False

        def give_way(self) -> None:
            self.closed = True

    connections = Connections(2)
    first, second, third, fourth = (Connection() for _ in range(4))
    assert connections.opened(first) and connections.opened(second)
    connections.busy(first)
    assert connections.opened(third) and second.closed and not first.closed
    connections.closed(second)
    connections.busy(third)
    assert not connections.opened(fourth)
    connections.closed(fourth)
    connections.idle(first)
    assert connections.opened(Connection()) and first.closed
