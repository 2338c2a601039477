"""Proxies and certificates of the environment, and servers on a socket file."""

from __future__ import annotations

import asyncio
import gc
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from rerankd import AsyncClient, Client
from rerankd.bench.load_client import LoadClient
from rerankd.client import retry
from rerankd.client.address import read_address
from rerankd.client.connections import Route
from rerankd.client.errors import RemoteRefused, RemoteUnreachable
from rerankd.errors import SettingsError
from support.fake_server import BOTH, Answer, Ask, StandIn

ELSEWHERE = "http://rerank.corp:8000"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")

EVERYWHERE = pytest.mark.parametrize(
    "make", [Client, AsyncClient, lambda url: LoadClient(url, None, 9)], ids=["Client", "AsyncClient", "LoadClient"]
)
"""All that opens connections."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One without any of these variables."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
    return monkeypatch


BROKEN = {
    "ALL_PROXY": "socks://127.0.0.1:7890/",
    "HTTP_PROXY": "http://user:secret@proxy:port",
    "SSL_CERT_FILE": "/nowhere.pem",
    "SSL_CERT_DIR": "/nowhere",
    "NO_PROXY": "[::1, x",
}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("ask", BOTH)
def test_this_machine_is_asked_without_a_proxy(ask: Ask, host: str, environment: pytest.MonkeyPatch) -> None:
    for name, value in BROKEN.items():
        environment.setenv(name, value)
    with StandIn() as server:
        assert len(ask(server.url.replace("127.0.0.1", host)).ranked) == 3


@pytest.mark.parametrize(
    "url",
    ["http://[::1]:8000", "http://app.localhost", "http://127.8.9.1", "unix:/run/r.sock", "http://[::ffff:127.0.0.1]"],
)
def test_nor_are_other_names_of_it(url: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALL_PROXY", "http://proxy:3128")
    assert Route(read_address(url)).proxy is None


@EVERYWHERE
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:7890", r"ALL_PROXY names .* pip install 'httpx2\[socks\]'"),
        ("ALL_PROXY", "socks5h://127.0.0.1:7890", r"pip install 'httpx2\[socks\]'"),
        ("all_proxy", "socks://127.0.0.1:7890/", "all_proxy=socks://127.0.0.1:7890/: .* write socks5://"),
        ("HTTP_PROXY", "ftp://proxy", "HTTP_PROXY=ftp://proxy: .* use one of http, https, socks5"),
        ("HTTP_PROXY", "http://user:secret@proxy:port", r"HTTP_PROXY=http://\*\*\*@proxy:port is not the address of"),
        ("HTTP_PROXY", "user:se/cr@et@proxy:port", r"HTTP_PROXY=\*\*\*@proxy:port"),
        ("http_proxy", "http://", "http_proxy=http:// is not the address of a proxy"),
        ("http_proxy", "http://[::1", "http_proxy="),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_with_the_way_out(
    make: Any, variable: str, value: str, message: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(SettingsError, match=message) as refused:
        make(ELSEWHERE)
    assert "NO_PROXY" in str(refused.value)
    assert "secret" not in str(refused.value) and "cr@et" not in str(refused.value)
    assert "\n" not in str(refused.value) and refused.value.__cause__ is None


@EVERYWHERE
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SSL_CERT_FILE", "/nowhere.pem", "SSL_CERT_FILE=/nowhere.pem cannot be used: No such file"),
        ("SSL_CERT_FILE", __file__, "SSL_CERT_FILE=.* it holds no certificates"),
        ("SSL_CERT_DIR", "/nowhere", "SSL_CERT_DIR=/nowhere cannot be used"),
        ("SSLKEYLOGFILE", "/nowhere/log", "SSLKEYLOGFILE=/nowhere/log cannot be written"),
    ],
)
def test_so_is_a_certificate(
    make: Any, variable: str, value: str, message: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(SettingsError, match=message):
        make("https://rerank.corp")
    make(ELSEWHERE)  # which has none


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://a:1"}, "http://a:1"),
        ({"http_proxy": "a:1"}, "a:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "ALL_PROXY": "socks://b"}, "http://a:1"),
        ({"HTTP_PROXY": "http://user:secret@a:1"}, "http://***@a:1"),
        ({"HTTPS_PROXY": "nonsense://"}, None),
        ({"HTTP_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "*"}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "x, rerank.corp"}, None),
        ({"HTTP_PROXY": "http://a:1", "no_proxy": "corp"}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": ".corp"}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "*.corp"}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "rerank.corp:8000"}, None),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "rerank.corp:9000"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "rank.corp"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": "[::1, ., 10.0.0.0/8"}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1", "NO_PROXY": ""}, "http://a:1"),
    ],
)
def test_which_proxy_is_taken(variables: dict[str, str], proxy: str | None, environment: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    found = Route(read_address(ELSEWHERE)).proxy
    assert (found.shown if found else None) == proxy


@pytest.mark.parametrize("entry", ["10.1.2.3", "10.0.0.0/8", "10.1.2.3:80"])
def test_networks_may_be_excluded(entry: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "http://a:1")
    environment.setenv("NO_PROXY", entry)
    assert Route(read_address("http://10.1.2.3")).proxy is None
    assert Route(read_address("http://11.1.2.3")).proxy


@pytest.mark.parametrize("ask", BOTH)
def test_a_proxy_is_asked_for_what_is_elsewhere(ask: Ask, environment: pytest.MonkeyPatch) -> None:
    with StandIn() as proxy:
        environment.setenv("HTTP_PROXY", proxy.url)
        assert len(ask(ELSEWHERE).ranked) == 3
    assert proxy.requests[0].path == f"{ELSEWHERE}/v1/rerank"


@pytest.mark.parametrize("ask", BOTH)
def test_an_error_on_the_way_names_the_proxy(ask: Ask, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTP_PROXY", "http://user:secret@127.0.0.1:9")
    way = r"http://rerank\.corp:8000/v1/rerank \(through the proxy http://\*\*\*@127\.0\.0\.1:9 of HTTP_PROXY\)"
    with pytest.raises(RemoteUnreachable, match=f"{way} cannot be reached"):
        ask(ELSEWHERE)
    with StandIn([Answer(407, b"no")]) as proxy:
        environment.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(RemoteRefused, match=r"through the proxy .* answered 407"):
            ask(ELSEWHERE)


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """HTTP's handler wants an address that is a pair."""

    def get_request(self) -> tuple[Any, Any]:
        request, _ = super().get_request()
        return request, ("", 0)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        content = b'{"results": [{"index": 0, "relevance_score": 0.5}]}'
        self.send_response(200 if self.path == "/v1/rerank" else 404)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("form", ["unix:{}", "unix://{}", "unix:{}:/v1"])
@pytest.mark.parametrize("ask", BOTH)
def test_a_server_on_a_socket_is_asked_there(
    ask: Ask, form: str, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("ALL_PROXY", "socks://nonsense")
    file = tmp_path / "r.sock"
    with UnixServer(str(file), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert ask(form.format(file), documents=["a"]).ranked[0].score == 0.5
        server.shutdown()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # httpcore leaves a socket that fails to the collector
@pytest.mark.parametrize("ask", BOTH)
def test_a_socket_without_a_server_is_reported(ask: Ask, tmp_path: Path) -> None:
    def error() -> str:
        with pytest.raises(RemoteUnreachable) as raised:
            ask(f"unix:{tmp_path}/no.sock")
        return str(raised.value)

    assert f"unix:{tmp_path}/no.sock:/v1/rerank cannot be reached" in error()
    gc.collect()


def test_the_load_client_reaches_a_socket(tmp_path: Path) -> None:
    async def asked(file: Path) -> str:
        async with LoadClient(f"unix:{file}", None, 9) as client:
            return (await client.rank("q", ["a"])).error

    file = tmp_path / "r.sock"
    with UnixServer(str(file), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert asyncio.run(asked(file)) == "not a ranking"  # it has no usage; but it was answered
        server.shutdown()
