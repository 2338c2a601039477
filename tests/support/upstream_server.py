"""A reranker of any dialect on real sockets that can be told to fail in each way, to be killed, and to come back."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from support.dialect_replies import JSON, MODEL, error_of, reply_of, scores_of
from support.ports import free_port

Scores = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a rerank request.

    Attributes:
        status: an error instead of a ranking, with `code`, `message` and `headers`.
        changed: other scores.
        wait_s: before the reply; None: until `release`.
        once: the next request gets no fault.
        end: how the connection ends: `reset` before the reply, `half` of the reply, `close` without one.
        content: bytes in place of the reply's body.
        health: GET fails as well.
    """

    status: int = 200
    code: str = ""
    message: str = "It is broken."
    headers: JSON = field(default_factory=dict)
    changed: Callable[[Scores], Scores] = lambda scores: scores
    wait_s: float | None = 0.0
    end: str = ""
    content: bytes | None = None
    health: bool = False
    once: bool = False


def slow(wait_s: float) -> Fault:
    return Fault(wait_s=wait_s)


def busy(retry_after_s: float | None, status: int = 429) -> Fault:
    """Asks to come later."""
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    return Fault(status, "rate_limit_exceeded", "Too many requests.", headers)


HANGS = Fault(wait_s=None)
RESETS = Fault(end="reset")
HALF_A_BODY = Fault(end="half")
CLOSES = Fault(end="close")
NO_JSON = Fault(content=b"<html>502 Bad Gateway</html>")
BROKEN = Fault(500, "InternalServerError", "CUDA error at http://10.0.0.7:8000")
BAD_GATEWAY = Fault(502)
WRONG_KEY = Fault(401, "InvalidApiKey", "Incorrect API key provided: sk-***.")
FORBIDDEN = Fault(403, "Model.AccessDenied", "Access denied.")
FIREWALL = Fault(403, content=b"<html><title>403 Forbidden</title></html>")
NO_CREDIT = Fault(402, "insufficient_balance", "Payment required.")
ARREARAGE = Fault(400, "Arrearage", "Access denied, please make sure your account is in good standing.")
NO_QUOTA = Fault(429, "insufficient_quota", "You exceeded your current quota.")
MODEL_FAILS = Fault(424, "backend", "Inference failed.")
NO_MODEL = Fault(404, "ModelNotFound", "Model not exist.")
REFUSES = Fault(400, "InvalidParameter", "Document 0 at http://10.0.0.7:8000 is too long: 9000 tokens.")
TOO_LARGE = Fault(413, "Validation", "batch size 64 > maximum allowed batch size 32")
MISSING = Fault(changed=lambda scores: scores[1:])
DOUBLE = Fault(changed=lambda scores: [*scores[1:], scores[-1]])
NAN = Fault(changed=lambda scores: [(index, float("nan")) for index, _ in scores])
INVERTED = Fault(changed=lambda scores: [(index, 1 - score) for index, score in scores])
CONSTANT = Fault(changed=lambda scores: [(index, 0.5) for index, _ in scores])
WITHOUT_TEMPLATE = (0.55859, 0.98828, 0.88672, 0.91016)
"""Of the four known documents by Qwen3-Reranker-0.6B, as sentence-transformers measured them in bfloat16 without the
template: the right document is first, and the scores are far apart."""
NO_TEMPLATE = Fault(changed=lambda scores: [(index, WITHOUT_TEMPLATE[index]) for index, _ in scores])
"""Of a server that forgets the model's prompt template."""


@dataclass(frozen=True)
class Asked:
    """A request, and when it came (time.monotonic())."""

    method: str
    path: str
    headers: dict[str, str]
    body: JSON
    at: float


class UpstreamServer:
    """The server. To be used in `with`; answers `/health`, `/v1/models`, and everything that is POSTed.

    Attributes:
        url: its root.
        fault: of the requests from now on; None: it answers.
        asked: every rerank request; looked_at: every other one.
        most_at_once: rerank requests under way at a time, at most.
        open_connections: now. num_connections: so far.
    """

    def __init__(self, dialect: str = "vllm", model: str = MODEL, key: str = "") -> None:
        self.dialect, self.model, self.key = dialect, model, key
        self.fault: Fault | None = None
        self.asked: list[Asked] = []
        self.looked_at: list[Asked] = []
        self.most_at_once = 0
        self.num_connections = 0
        self._under_way = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = free_port()  # where it comes back to after `kill`
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    def __enter__(self) -> UpstreamServer:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def start(self) -> None:
        """Listens, after `kill` on the same port as before."""
        self._run(self._start)

    def kill(self) -> None:
        """Resets every connection and listens no more."""
        self._run(self._kill)

    def release(self) -> None:
        """Answers all requests that wait without an end."""
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, backlog=512)

    async def _kill(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for _ in range(3):  # a connection that was just accepted becomes known one round of the loop later
            for writer in tuple(self._writers):
                _reset(writer)
            for task in tuple(self._serving):
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        self._writers.add(writer)  # here: `kill` may cancel the task before its first step
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: self._writers.discard(writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(await _read(reader), writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        fault = self.fault or Fault()
        if fault.once:
            self.fault = None
        if asked.method == "GET":
            self.looked_at.append(asked)
            if not fault.health:
                return await _send(writer, 200, json.dumps(self._about(asked.path)).encode(), {})
        else:
            self.asked.append(asked)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            if fault.wait_s is None:
                await self._released.wait()
            await asyncio.sleep(fault.wait_s or 0)
        finally:
            self._under_way -= 1
        return await self._reply(asked, fault, writer)

    def _about(self, path: str) -> JSON:
        return {"object": "list", "data": [{"id": self.model, "object": "model"}]} if path.endswith("/models") else {}

    async def _reply(self, asked: Asked, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        if fault.end == "reset":
            _reset(writer)
        if fault.end in ("reset", "close"):
            return False
        if self.key and asked.headers.get("authorization") != f"Bearer {self.key}":
            fault = replace(WRONG_KEY, end=fault.end)
        if fault.status != 200:
            body = error_of(self.dialect, fault.status, fault.message, fault.code)
        else:
            scores = fault.changed(scores_of(self.dialect, asked.body))
            body = reply_of(self.dialect, {"model": self.model, **asked.body}, scores)
        content = json.dumps(body).encode() if fault.content is None else fault.content
        return await _send(writer, fault.status, content, fault.headers, half=fault.end == "half")


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split()
    return Asked(method, path, headers, json.loads(content or b"{}"), time.monotonic())


async def _send(
    writer: asyncio.StreamWriter, status: int, content: bytes, headers: dict[str, Any], half: bool = False
) -> bool:
    fields = {"content-type": "application/json", "content-length": len(content), **headers}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {fields[name]}" for name in fields)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + (content[: len(content) // 2] if half else content))
    await writer.drain()
    return not half


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection with RST in place of FIN."""
    connection = writer.get_extra_info("socket")
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
