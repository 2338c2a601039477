"""Pages of other sites: refused by a server without keys, let in where the operator names them."""

from __future__ import annotations

import httpx2
import pytest

from support.server import Server, StartServer
from support.surfaces import RERANK

PAGE = "https://app.example"


@pytest.fixture(scope="module")
def keyless(start_server: StartServer) -> Server:
    return start_server("--model", "embedded")


@pytest.fixture(scope="module")
def shared(start_server: StartServer) -> Server:
    """With a key, for the pages of one site."""
    return start_server("--model", "embedded", "--cors-origin", PAGE, key="sesame")


def called(server: Server, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.post(server.url + RERANK.path, json=RERANK.body(), headers=named, timeout=60)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": PAGE, "sec_fetch_site": "cross-site"},
        {"origin": "http://rebind.example:8000", "host": "rebind.example:8000", "sec_fetch_site": "same-origin"},
        {"origin": "null", "sec_fetch_site": "cross-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_may_not_call(headers: dict[str, str], keyless: Server) -> None:
    answer = called(keyless, **headers)
    assert answer.status_code == 403 and "--cors-origin" in answer.json()["detail"]
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "rerank.corp.example"},  # a program behind a proxy
        {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000", "sec_fetch_site": "same-origin"},
        {"origin": "http://localhost:8000", "host": "localhost:8000", "sec_fetch_site": "same-origin"},
        {"origin": "https://rerank.corp.example", "host": "rerank.corp.example", "sec_fetch_site": "same-origin"},
    ],
    ids=str,
)
def test_programs_and_own_pages_may(headers: dict[str, str], keyless: Server) -> None:
    assert called(keyless, **headers).status_code == 200


def preflight(server: Server, origin: str) -> httpx2.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return httpx2.options(server.url + RERANK.path, headers={"origin": origin, **asked})


def test_without_the_option_no_page_is_let_in(keyless: Server) -> None:
    answer = preflight(keyless, PAGE)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_named_page_may_ask_without_a_key_and_call_with_one(shared: Server) -> None:
    allowed = preflight(shared, PAGE)
    assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == PAGE
    assert "authorization" in allowed.headers["access-control-allow-headers"].lower()
    answer = called(shared, origin=PAGE, sec_fetch_site="cross-site", authorization="Bearer sesame")
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == PAGE
    shown = answer.headers["access-control-expose-headers"].lower()
    assert "x-request-id" in shown and "x-rerankd-warning" in shown and "x-rerankd-model" in shown
    refused = called(shared, origin=PAGE, sec_fetch_site="cross-site")
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == PAGE


def test_another_page_is_not_let_in(shared: Server) -> None:
    assert "access-control-allow-origin" not in preflight(shared, "https://evil.example").headers
    answer = called(shared, origin="https://evil.example", authorization="Bearer sesame")
    assert "access-control-allow-origin" not in answer.headers
