"""Connections as bytes, against a real server: upgrades, half-closed and silent callers, heads, sockets, TLS."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from support.debian_server import require
from support.ports import free_port
from support.quick import skip_if_quick
from support.raw import BODY, call, connected, read_answers, read_to_the_end, send_slowly, wait_until_read
from support.server import Server, StartServer
from support.waiting import wait_until

UPGRADES = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA"),
    "websocket": ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="),
    "TLS": ("Upgrade: TLS/1.2", "Connection: keep-alive, upgrade"),
    "several": ("Connection: upgrade", "Upgrade: foo/1, bar"),
    "without Connection": ("Upgrade: h2c",),
}
upgrades = pytest.mark.parametrize("headers", UPGRADES.values(), ids=UPGRADES)


def ranked(answer: tuple[int, bytes]) -> bool:
    """Whether it is the right ranking of `BODY`."""
    return answer[0] == 200 and json.loads(answer[1])["results"][0]["index"] == 1


@upgrades
def test_a_foreign_upgrade_is_ignored_and_its_body_read(headers: tuple[str, ...], embedded_server: Server) -> None:
    whole = call(embedded_server.key, *headers)
    head, body = whole[: -len(BODY)], BODY
    chunks = b"1\r\n{\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY) - 1, BODY[1:])
    chunked = call(embedded_server.key, *headers, body=b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for parts, count in (
        ((whole,), 1),
        ((head, body), 1),
        ((head[:40], head[40:-2], head[-2:] + body[:5], body[5:]), 1),
        ((whole + whole + whole,), 3),
        ((whole, call(embedded_server.key), whole), 3),
        ((chunked + chunks,), 1),
        ((chunked, chunks + whole), 2),
    ):
        with connected(embedded_server.url) as raw:
            send_slowly(raw, *parts)
            assert all(ranked(answer) for answer in read_answers(raw, count)), parts


@upgrades
def test_an_upgrade_without_a_body(headers: tuple[str, ...], embedded_server: Server) -> None:
    request = "\r\n".join(("GET /health HTTP/1.1", "Host: x", *headers, "", "")).encode()
    with connected(embedded_server.url) as raw:
        raw.sendall(request * 2)
        assert [status for status, _ in read_answers(raw, 2)] == [200, 200]


def test_the_server_stops_gracefully_beside_an_upgrade(start_server: StartServer) -> None:
    server = start_server("--model", "embedded")
    with connected(server.url) as raw, connected(server.url) as half:
        raw.sendall(call("", *UPGRADES["websocket"]))
        assert ranked(read_answers(raw, 1)[0])
        half.sendall(call("", *UPGRADES["websocket"])[:-5])
        wait_until_read(half)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: any("Stopping" in line for line in server.log))
        half.sendall(BODY[-5:])
        assert b"200 OK" in read_to_the_end(half)
    server.ended()
    assert "Traceback" not in "".join(server.log)


def test_a_caller_that_has_sent_all_gets_its_answer(embedded_server: Server) -> None:
    """`nc -N` closes its own side."""
    for request in (call(embedded_server.key), b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"):
        with connected(embedded_server.url) as raw:
            raw.sendall(request)
            raw.shutdown(socket.SHUT_WR)
            assert read_to_the_end(raw).count(b" 200 OK\r\n") == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /health HTTP/1.1\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET /health HTTP/1.0\r\n", 200),
        ("GET /health HTTP/1.1\r\nHost:\r\n", 200),
        (f"GET /health?{'a' * 9000} HTTP/1.1\r\nHost: a\r\n", 414),
        (f"GET /health?{'a' * 8000} HTTP/1.1\r\nHost: a\r\n", 200),
    ],
    ids=["none", "two", "the same twice", "HTTP/1.0", "empty", "a long address", "a shorter one"],
)
def test_heads(head: str, status: int, embedded_server: Server) -> None:
    with connected(embedded_server.url) as raw:
        raw.sendall(f"{head}\r\n".encode())
        assert read_answers(raw, 1)[0][0] == status


def test_what_came_before_garbage_is_answered_first(embedded_server: Server) -> None:
    with connected(embedded_server.url) as raw:
        raw.sendall(call(embedded_server.key) + b"\0\0\0\0")
        first, second = read_answers(raw, 2)
    assert ranked(first) and second[0] == 400


def test_an_idle_connection_is_kept(embedded_server: Server, start_server: StartServer) -> None:
    """Longer than uvicorn's 5 s, and as long as a setting says."""
    server = start_server("--model", "embedded", "--timeout-keep-alive", "1")
    with connected(embedded_server.url) as kept, connected(server.url) as short:
        for raw, key in ((kept, embedded_server.key), (short, "")):
            raw.sendall(call(key))
            assert ranked(read_answers(raw, 1)[0])
        short.settimeout(60)
        assert short.recv(1) == b""
        time.sleep(6)
        kept.sendall(call(embedded_server.key))
        kept.settimeout(60)
        assert ranked(read_answers(kept, 1)[0])


def test_silent_connections_give_way(start_server: StartServer) -> None:
    """More of them than files that may be open: whoever sends something is answered."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limit[0]), limit[1]))
    try:
        code = "import resource as r, runpy, sys; r.setrlimit(r.RLIMIT_NOFILE, (256, 256)); sys.argv[1:1] = ['serve']; "
        code += "sys.exit(__import__('rerankd.cli.main').cli.main.main())"
        command = [sys.executable, "-c", code, "--model", "embedded", "--port", str(port := free_port())]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url)
        with ExitStack() as stack:
            silent = [stack.enter_context(connected(url)) for _ in range(400)]
            for raw in silent[::2]:
                _try_to_send(raw, b"POST / HTTP/1.1\r\nHo")
            for _ in range(20):
                assert httpx2.get(f"{url}/health", timeout=60).status_code == 200
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_the_limit_on_files_is_raised(embedded_server: Server) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, _ = resource.prlimit(embedded_server.process.pid, resource.RLIMIT_NOFILE)
    assert soft >= min(hard, 65_536)


def test_a_socket_file(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "rerankd.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))  # as a server leaves it that was killed
    server = start_server("--model", "embedded", "--uds", str(path), wait=False)
    assert server.url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://x", timeout=60) as client:
        server.wait_until(lambda: client.get("/health").status_code == 200)
        response = client.post("/v1/rerank", content=BODY, headers={"content-type": "application/json"})
        assert response.json()["results"][0]["index"] == 1
    second = _refusal("--uds", str(path))
    assert "Another server listens" in second and "--uds" in second
    server.process.terminate()
    server.process.wait(60)
    assert not path.exists()


def test_what_cannot_be_bound_is_one_line(embedded_server: Server, tmp_path: Path) -> None:
    port = str(httpx2.URL(embedded_server.url).port)
    (tmp_path / "text").write_text("not a socket")
    for options, words in {
        ("--port", port): "--port",
        ("--host", "192.0.2.1", "--no-auth"): "--host",
        ("--host", "no.such.name.invalid", "--no-auth"): "--host",
        ("--uds", str(tmp_path / "text")): "is not a socket",
        ("--uds", str(tmp_path / "none" / "x")): "--uds",
        ("--uds", str(tmp_path / ("x" * 200))): "--uds",
        ("--ssl-certfile", str(tmp_path / "none.pem")): "--ssl-certfile",
        ("--ssl-keyfile", str(tmp_path / "none.pem")): "--ssl-certfile",
    }.items():
        assert words in _refusal(*options)


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost", "::"])
def test_hosts_of_ip_version_6(host: str, start_server: StartServer) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start_server("--model", "embedded", "--host", host, "--no-auth")
    port = httpx2.URL(server.url).port
    found = {f"[{one[4][0]}]" for one in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)}
    for address in (
        {"[::1]", "127.0.0.1"} if host == "::" else {one.replace("[127.0.0.1]", "127.0.0.1") for one in found}
    ):
        assert httpx2.get(f"http://{address}:{port}/health").status_code == 200
    if host != "localhost":
        assert server.url == f"http://[{host.strip('[]')}]:{port}"
    server.process.terminate()


def test_tls(start_server: StartServer, tmp_path: Path) -> None:
    """With a certificate of its own, and one of the caller's."""
    openssl = require("openssl", "openssl")
    for name in ("server", "caller"):
        files = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.pem")]
        subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
        subprocess.run(command, check=True, capture_output=True)
    own = ("--ssl-certfile", str(tmp_path / "server.pem"), "--ssl-keyfile", str(tmp_path / "server.key"))
    authorities = ("--ssl-ca-certs", str(tmp_path / "caller.pem"))
    server = start_server("--model", "embedded", *own, *authorities, wait=False)
    trust = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{server.url}/health", verify=trust)
    trust.load_cert_chain(tmp_path / "caller.pem", tmp_path / "caller.key")
    server.wait_until(lambda: httpx2.get(f"{server.url}/health", verify=trust).status_code == 200)
    assert server.url.startswith("https://")


def _refusal(*options: str) -> str:
    """The one line of a start that fails."""
    skip_if_quick("starts the command")
    command = [sys.executable, "-m", "rerankd", "serve", "--model", "embedded", "--port", "0", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"})
    assert result.returncode == 1 and "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def _wait_for(url: str) -> None:
    def ready() -> bool:
        try:
            return httpx2.get(f"{url}/health", timeout=60).status_code == 200
        except httpx2.TransportError:
            return False

    wait_until(ready)


def _try_to_send(raw: socket.socket, data: bytes) -> None:
    try:
        raw.sendall(data)
    except OSError:
        pass  # it has given way
