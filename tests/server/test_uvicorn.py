"""What server/protocol.py, server/forwarded.py and cli/serve.py use of uvicorn beyond its documentation.

`BoundedHTTP` extends a class of uvicorn, and pyproject.toml bounds uvicorn's version. Each test names one thing that
has to be there in the next version, and fails before a server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
import pytest
import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

HEAD = b"POST /path HTTP/1.1\r\nHost: a\r\nX-Test: b\r\nContent-Length: 4\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def answer(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def on_a_loop(test: Callable[[HttpToolsProtocol, Transport], Any]) -> None:
    async def run() -> None:
        config = uvicorn.Config(answer, ws="none", lifespan="off", log_config=None)
        protocol = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})
        transport = Transport()
        protocol.connection_made(transport)
        assert protocol.transport is transport
        await test(protocol, transport)
        protocol.connection_lost(None)

    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("The condition did not hold.")


def state_of(protocol: HttpToolsProtocol) -> tuple[bool, bool, bool]:
    """(more of the body comes, the response started, it is complete)."""
    return protocol.cycle.more_body, protocol.cycle.response_started, protocol.cycle.response_complete


def test_the_state_of_a_request() -> None:
    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        assert vars(protocol)["cycle"] is None and protocol.scheme == "http" and not protocol.pipeline
        protocol.data_received(HEAD)
        assert protocol.url == b"/path" and (b"x-test", b"b") in protocol.headers
        assert protocol.scope["http_version"] == "1.1"
        assert isinstance(protocol.parser, httptools.HttpRequestParser)
        assert protocol.parser.get_method() == b"POST" and not protocol.parser.should_upgrade()
        assert state_of(protocol) == (True, False, False)
        protocol.data_received(b"body")
        assert state_of(protocol) == (False, False, False)
        await until(lambda: protocol.cycle.response_complete)
        assert state_of(protocol) == (False, True, True) and transport.written.startswith(STATUS_LINE[200])

    on_a_loop(test)


def test_the_timer_of_an_idle_connection() -> None:
    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        assert protocol.timeout_keep_alive_task is None
        protocol.data_received(HEAD + b"body")
        await until(lambda: protocol.cycle.response_complete)
        assert isinstance(protocol.timeout_keep_alive_task, asyncio.TimerHandle)

    on_a_loop(test)


def test_the_application_may_be_another_for_one_request() -> None:
    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        own = protocol.app

        async def refuse(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 414, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        protocol.app = refuse
        protocol.data_received(HEAD)
        protocol.app = own
        await until(lambda: protocol.cycle.response_complete)
        assert transport.written.startswith(STATUS_LINE[414])

    on_a_loop(test)


def test_a_second_request_waits_in_the_pipeline() -> None:
    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        protocol.data_received(HEAD + b"body" + HEAD + b"body")
        assert len(protocol.pipeline) == 1
        await until(lambda: protocol.cycle.response_complete)
        assert not protocol.pipeline and transport.written.count(b"HTTP/1.1 200") == 2

    on_a_loop(test)


CALLBACKS = ("on_message_begin", "on_headers_complete", "on_body", "on_message_complete", "on_response_complete")


@pytest.mark.parametrize("name", CALLBACKS)
def test_a_callback_of_a_subclass_is_called(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    original = getattr(HttpToolsProtocol, name)

    def watched(self: HttpToolsProtocol, *args: Any) -> None:
        called.append(name)
        original(self, *args)

    monkeypatch.setattr(HttpToolsProtocol, name, watched)

    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        protocol.data_received(HEAD + b"body")
        await until(lambda: protocol.cycle.response_complete)
        assert called == [name]

    on_a_loop(test)


def test_where_the_parser_stops_for_an_upgrade() -> None:
    async def test(protocol: HttpToolsProtocol, transport: Transport) -> None:
        head = HEAD.replace(b"X-Test: b", b"Connection: Upgrade\r\nUpgrade: h2c")
        with pytest.raises(httptools.HttpParserUpgrade) as stop:
            protocol.parser.feed_data(head + b"body")
        assert stop.value.args[0] == len(head) and protocol.parser.should_upgrade()
        await until(lambda: protocol.cycle is not None)

    on_a_loop(test)


def test_the_trusted_addresses_are_a_container() -> None:
    middleware = ProxyHeadersMiddleware(answer, "127.0.0.1, 10.0.0.0/8")
    trusted = middleware.trusted_hosts
    assert "127.0.0.1" in trusted and "10.1.2.3" in trusted and "192.0.2.1" not in trusted and None not in trusted


def test_the_server_knows_its_running_calls_and_ends_in_shutdown() -> None:
    server = uvicorn.Server(uvicorn.Config(answer, log_config=None))
    assert server.server_state.tasks == set() and server.force_exit is False
    assert asyncio.iscoroutinefunction(server.startup) and asyncio.iscoroutinefunction(server.shutdown)
