"""Behind Debian's nginx, under a path, with and without the path being taken away: API, descriptions, connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from support.nginx import nginx
from support.server import Server, StartServer

CALL = {"query": "apples", "documents": ["pears", "apples"]}

WAYS = {
    "stripped, --root-path": (("--root-path", "/rerank"), "/", ""),
    "not stripped, --root-path": (("--root-path", "/rerank/"), "", ""),
    "stripped, X-Forwarded-Prefix": ((), "/", "proxy_set_header X-Forwarded-Prefix /rerank;"),
}


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
def under_a_path(
    request: pytest.FixtureRequest, start_server: StartServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server under `/rerank/`."""
    options, target, more = request.param
    server = start_server("--model", "embedded", *options)
    upstream = server.url.removeprefix("http://")
    with nginx(tmp_path_factory.mktemp("nginx"), upstream, "/rerank/", target, more) as url:
        yield f"{url}/rerank"


def test_the_api_under_a_path(under_a_path: str) -> None:
    for path in ("/rerank", "/v1/rerank", "/v1/rerank/", "/v2/rerank", "/cohere/v2/rerank", "/tei/rerank"):
        documents = {"texts": CALL["documents"]} if "tei" in path else {"documents": CALL["documents"]}
        body = {"model": "qwen3-rerank", "query": "apples", **documents}
        response = httpx2.post(under_a_path + path, json=body, timeout=60)
        assert response.status_code == 200, (path, response.text)
        results = response.json() if "tei" in path else response.json()["results"]
        assert results[0]["index"] == 1
    for path in ("/health", "/health/", "/v1/models", "/metrics", "/favicon.ico", "/robots.txt"):
        for method in ("GET", "HEAD"):
            response = httpx2.request(method, under_a_path + path)
            assert response.status_code == 200 and bool(response.content) == (method == "GET"), path
    missing = httpx2.post(f"{under_a_path}/v1/nothing", json={})
    assert missing.status_code == 404 and "POST /v1/nothing" in missing.json()["detail"]
    assert httpx2.get(f"{under_a_path}/v1/rerank").status_code == 405


def test_every_link_of_the_pages_leads_somewhere(under_a_path: str) -> None:
    site = under_a_path.removesuffix("/rerank")
    for page in ("/", "/rates", "/docs"):
        response = httpx2.get(under_a_path + page)
        assert response.status_code == 200
        links = set(re.findall(r'(?:href|src|action|data-url)="(/[^"#]*)"', response.text))
        assert len(links) > 3
        for link in links:
            assert link.startswith("/rerank/") and httpx2.get(site + link).status_code == 200, link


def test_the_description_names_the_path(under_a_path: str) -> None:
    description = httpx2.get(f"{under_a_path}/openapi.json").json()
    assert description["servers"][0]["url"] == "/rerank" and "/v1/rerank" in description["paths"]


def test_a_thousand_calls_through_a_pool(under_a_path: str) -> None:
    limits = httpx2.Limits(max_connections=16)
    with httpx2.Client(timeout=120, limits=limits) as client, ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda _: client.post(f"{under_a_path}/v1/rerank", json=CALL), range(1000))
        statuses = [answer.status_code for answer in answers]
    assert statuses == [200] * 1000


def test_a_socket_file_behind_nginx(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "rerankd.sock"
    server = start_server("--model", "embedded", "--uds", str(path), wait=False)
    path.chmod(0o666)  # as the operator would put nginx into the file's group
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        if folder.stat().st_mode & 0o011 != 0o011:  # /tmp is not ours, and open
            folder.chmod(folder.stat().st_mode | 0o011)
    with nginx(tmp_path, f"unix:{path}") as url:
        server.wait_until(lambda: httpx2.get(f"{url}/health").status_code == 200)
        assert httpx2.post(f"{url}/v1/rerank", json=CALL).json()["results"][0]["index"] == 1


def test_only_a_trusted_proxy_tells_the_path(start_server: StartServer) -> None:
    server = start_server("--model", "embedded", env={"FORWARDED_ALLOW_IPS": "192.0.2.1", "PATH": "/usr/bin:/bin"})
    page = httpx2.get(server.url, headers={"x-forwarded-prefix": "/rerank"}).text
    assert "/rerank/" not in page


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a b", 'x" onload="y', "/a/../b?", "https://evil.example", "/" * 9]
)
def test_a_prefix_that_is_none_is_passed_over(prefix: str, embedded_server: Server) -> None:
    page = httpx2.get(embedded_server.url, headers={"x-forwarded-prefix": prefix})
    assert page.status_code == 200 and re.search(r'href="/static/\w+/app\.css"', page.text)
