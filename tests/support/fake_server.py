"""A server that answers as it is told, on real sockets, and one way to ask for each of the two clients."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from rerankd import AsyncClient, Client, Ranking

JSON = dict[str, Any]

QUERY = "What is the capital of China?"
DOCUMENTS = ("Gravity is a force.", "The capital of China is Beijing.", "Bread is baked.")


@dataclass(frozen=True)
class Answer:
    """One HTTP reply. body: JSON, or bytes as they are; hang_up: close the connection in place of it."""

    status: int = 200
    body: Any = None
    headers: JSON = field(default_factory=dict)
    hang_up: bool = False


def score_of(document: str) -> float:
    """A score that depends on the document alone; many documents share one."""
    return sum(document.encode()) % 11 / 10


def ranking_of(body: JSON) -> Answer:
    """What a good server of `/v1/rerank` answers."""
    results = [{"index": index, "relevance_score": score_of(text)} for index, text in enumerate(body["documents"])]
    top_n = body.get("top_n")
    # Ties come in reverse where nothing is cut off, as TEI has them.
    results.sort(key=lambda result: (-result["relevance_score"], result["index"] if top_n else -result["index"]))
    tokens = sum(map(len, body["documents"]))
    reply = {
        "id": f"id-{len(results)}",
        "model": "stand-in",
        "results": results[:top_n],
        "usage": {"total_tokens": tokens},
    }
    return Answer(body=reply)


@dataclass(frozen=True)
class Request:
    """What was asked, and when (time.monotonic())."""

    path: str
    headers: dict[str, str]
    body: JSON
    at: float


class _QuietServer(ThreadingHTTPServer):
    """Says nothing about clients that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class StandIn:
    """The server. Its answers: those of `script`, in turn, then what `answer` makes of the body. To be used in `with`.

    most_at_once: the largest number of requests that were under way at a time. num_connections: that were made to it.
    """

    def __init__(self, script: Iterable[Answer] = (), answer: Callable[[JSON], Answer] = ranking_of) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.num_connections = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self._script = iter(script)
        self._answer = answer
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with stand_in._lock:
                    stand_in.num_connections += 1

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, headers, json.loads(content or b"{}"), time.monotonic())
                answer = stand_in._answered(request)
                if answer.hang_up:
                    self.close_connection = True
                    return
                content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(content)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answered(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            scripted = next(self._script, None)
        try:
            return scripted or self._answer(request.body)
        finally:
            with self._lock:
                self._under_way -= 1


Ask = Callable[..., Ranking]


def ask_sync(url: str, key: str | None = None, client: JSON | None = None, **call: Any) -> Ranking:
    """One call of a `Client`. client: arguments of its constructor."""
    with Client(url, key, **client or {}) as asking:
        return asking.rank(**{"query": QUERY, "documents": DOCUMENTS, **call})


def ask_async(url: str, key: str | None = None, client: JSON | None = None, **call: Any) -> Ranking:
    """The same with an `AsyncClient`."""

    async def ask() -> Ranking:
        async with AsyncClient(url, key, **client or {}) as asking:
            return await asking.rank(**{"query": QUERY, "documents": DOCUMENTS, **call})

    return asyncio.run(ask())


BOTH = (ask_sync, ask_async)
"""For `pytest.mark.parametrize("ask", BOTH)`: whatever a test says holds for the two alike."""
