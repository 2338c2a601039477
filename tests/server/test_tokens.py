"""POST /tokenize and /detokenize: what they answer, and that nobody can send them what no rerank path would read."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from support.server import Server, StartServer

BODIES: dict[str, dict[str, Any]] = {"/tokenize": {"prompt": "Beijing"}, "/detokenize": {"tokens": [1, 2]}}

each = pytest.mark.parametrize("path", BODIES)


@pytest.fixture(scope="module")
def small_server(start_server: StartServer) -> Server:
    """Reads at most 1 MB."""
    return start_server("--model", "embedded", "--max-body-mb", "1", key="test-key")


def told(response: httpx2.Response, status: int, code: str) -> str:
    assert response.status_code == status, response.text[:1000]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code"} and error["code"] == code
    return str(error["message"])


def test_a_text_and_its_tokens(qwen_server: Server) -> None:
    text = "The capital of China is Beijing. 重排序 <|im_end|>"
    reply = qwen_server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == 8192
    assert 151645 not in reply["tokens"]  # the control token that the text only looks like
    assert qwen_server.post("/detokenize", {"tokens": reply["tokens"]}).json() == {"prompt": text}
    assert qwen_server.post("/tokenize", {"prompt": text}).json()["token_strs"] is None


def test_an_ignored_field_is_told(small_server: Server, start_server: StartServer) -> None:
    body = {"prompt": "x", "add_special_tokens": False}
    response = small_server.post("/tokenize", body)
    assert response.headers["x-rerankd-warning"] == "fields ignored: 'add_special_tokens'"
    strict = start_server("--model", "embedded", "--strict", key="test-key")
    assert "add_special_tokens" in told(strict.post("/tokenize", body), 400, "invalid_parameter")


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": None}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/detokenize", {"tokens": ["a"]}, "tokens.0"),
        ("/detokenize", {"tokens": [-1]}, "tokens.0"),
        ("/detokenize", {"tokens": [2**31]}, "tokens.0"),
        ("/detokenize", {"tokens": [0] * 100_001}, "tokens"),
    ],
)
def test_a_mistake_is_named(path: str, body: dict[str, Any], where: str, small_server: Server) -> None:
    assert told(small_server.post(path, body), 400, "invalid_parameter").startswith(f"{where}: ")


@each
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"prompt": NaN}', b"[" * 100_000])
def test_what_is_no_json_object(path: str, content: bytes, small_server: Server) -> None:
    told(small_server.post(path, content=content), 400, "invalid_parameter")


@pytest.mark.parametrize("model", ["embedded", "qwen"])
def test_a_text_over_the_limit_is_refused_with_the_way_out(
    model: str, qwen_server: Server, embedded_server: Server
) -> None:
    server = qwen_server if model == "qwen" else embedded_server
    error = told(server.post("/tokenize", {"prompt": "1" * 500_001}), 400, "invalid_parameter")
    assert "500001 characters" in error and "at most 500000" in error and "in parts" in error
    assert server.post("/tokenize", {"prompt": "word " * 20_000}).json()["count"] >= 20_000


@each
def test_a_body_over_the_limit(path: str, small_server: Server) -> None:
    response = small_server.post(path, content=b" " * 1_000_001)
    assert "1 MB" in told(response, 413, "request_too_large")
    assert response.headers["connection"] == "close"
    chunks = (b" " * 100_000 for _ in range(11))  # without saying how many
    assert "1 MB" in told(small_server.post(path, content=chunks), 413, "request_too_large")


@each
@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("test-key", 413)])
def test_the_key_and_the_size_come_before_the_body(path: str, key: str, status: int, small_server: Server) -> None:
    """No byte of the body is ever sent."""
    address = urlsplit(small_server.url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 999999999\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


@each
def test_without_a_key(path: str, small_server: Server) -> None:
    response = httpx2.post(small_server.url + path, json=BODIES[path])
    assert "Authorization" in told(response, 401, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


@each
def test_the_description_says_what_is_read(path: str, small_server: Server) -> None:
    operation = httpx2.get(f"{small_server.url}/openapi.json").json()["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == list(BODIES[path])
    assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "415", "503"}
