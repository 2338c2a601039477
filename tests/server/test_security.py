"""Who is kept out, and what nobody learns: every route by its kind of door, bombs, headers, logs.

The pages' own defences, one by one, are in tests/web/test_security.py.
"""

from __future__ import annotations

import gzip
import hashlib
import html.parser
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.accounts.accounts import Account
from rerankd.accounts.store import Store, open_store
from rerankd.apis.base import ApiSettings
from rerankd.apis.registry import api_routes
from rerankd.app import create_app
from rerankd.config import ServerSettings
from rerankd.errors import InvalidRequest
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from rerankd.server.tokens import DetokenizeBody, TokenizeBody
from rerankd.setting import Secret
from support.fakes import NumberedModel, scorer_of
from support.ports import free_port
from support.quick import skip_if_quick
from support.redis_server import running_redis
from support.routes import Route, routes_of
from support.server import Server, StartServer
from support.serving import serving

PASSWORD = "correct horse battery"
CARD = (
    '[rates."embedded-multilingual"]\ninput_price = 1\nfree_tokens = 1_000_000\n'
    '[rates."another-model"]\ninput_price = 2\n'
)
CALL = {"model": "qwen3-rerank", "query": "q", "documents": ["d"]}
FORM = {"content-type": "application/x-www-form-urlencoded"}

# Every route of the server, by who may use it. A route that is in no list fails a test.

OPEN = {
    *(
        ("GET", path)
        for path in ("/health", "/readyz", "/livez", "/startupz", "/ping", "/version", "/load", "/metrics", "/v1/rates")
    ),
    *(("GET", path) for path in ("/tei", "/tei/health", "/tei/ping", "/tei/metrics", "/infinity/health")),
    *(("GET", path) for path in ("/v1/cluster/auth", "/xinference/v1/cluster/auth")),
    *(
        ("GET", path)
        for path in (
            "/",
            "/rates",
            "/docs",
            "/favicon.ico",
            "/robots.txt",
            "/sample",
            "/static/{name}",
            "/static/{tag}/{name}",
            "/openapi.json",
            "/static-offline-docs",
        )
    ),
    ("POST", "/ping"),
    *((method, path) for method in ("GET", "POST") for path in ("/sign-in", "/sign-up", "/join", "/reset")),
    *(("GET", "/forgot"), ("POST", "/join/keep")),
}
KEYED = {
    *(("GET", path) for path in ("/v1/models", "/v1/models/{name:path}", "/info", "/tei/info", "/infinity/models")),
    *(("GET", path) for path in ("/xinference/v1/models", "/xinference/v1/models/{name:path}")),
    *(("POST", path) for path in ("/tokenize", "/detokenize")),
}
RERANK = set(api_routes(ApiSettings()))
SIGNED_IN = {
    *(
        ("GET", path)
        for path in ("/account", "/account/email", "/members", "/keys", "/usage", "/usage.csv", "/usage-by-day.csv")
    ),
    *(("GET", path) for path in ("/statement", "/statement.csv", "/calls", "/calls.csv")),
    *(
        ("POST", path)
        for path in (
            "/account/password",
            "/account/second-factor/on",
            "/account/second-factor/off",
            "/account/second-factor/codes",
            "/account/unlink",
            "/account/delete",
            "/account/email",
            "/account/choose",
            "/join/accept",
            *(f"/members/{what}" for what in ("invite", "withdraw", "role", "remove", "leave")),
            "/keys",
            "/keys/budget",
            "/keys/{key_id:row}/revoke",
            "/sign-out",
        )
    ),
}
ADMIN = {
    *(("GET", path) for path in ("/admin", "/admin/status", "/admin/accounts/{account_id:row}")),
    *(
        ("GET", path)
        for path in (
            "/admin/calls",
            "/admin/calls.csv",
            "/admin/usage",
            "/admin/usage.csv",
            "/admin/usage-by-day.csv",
            "/admin/server",
            "/admin/log",
        )
    ),
    *(
        ("GET", f"/admin/accounts/{{account_id:row}}/{what}")
        for what in ("statement", "statement.csv", "calls", "calls.csv", "log", "usage-by-day.csv")
    ),
    *(("POST", path) for path in ("/admin/accounts", "/admin/invites", "/admin/upstreams/probe")),
    *(
        ("POST", f"/admin/accounts/{{account_id:row}}/{what}")
        for what in (
            "budget",
            "credit",
            "delete",
            "email-link",
            "limits",
            "link",
            "password",
            "role",
            "second-factor",
            "state",
            "unlink",
            "keys/{key_id:row}/revoke",
        )
    ),
}


@dataclass
class Fort:
    """A server with accounts, and somebody of each kind."""

    server: Server
    store: Store
    file: Path
    admin: Account
    user: Account
    admin_key: int
    keys: dict[str, str]

    def client(self, key: str | None = None, account: Account | None = None, **headers: str) -> httpx2.Client:
        """Somebody with a key, or a browser that is signed in."""
        cookies = {"rerankd-session": self.store.sessions.open(account.id)} if account else {}
        authorization = {"authorization": f"Bearer {key}"} if key is not None else {}
        return httpx2.Client(
            base_url=self.server.url, headers={**authorization, **headers}, cookies=cookies, timeout=60
        )

    def csrf(self, client: httpx2.Client) -> str:
        session = self.store.sessions.find(client.cookies["rerankd-session"])
        assert session
        return session.csrf

    def path(self, template: str) -> str:
        """Of things that are there, and the administrator's."""
        numbers = {"account_id": self.admin.id, "key_id": self.admin_key}
        path = re.sub(r"\{(\w+):row\}", lambda found: str(numbers[found[1]]), template)
        path = path.replace("/static-offline-docs", "/static-offline-docs/swagger-ui.css")
        path = path.replace("{path:path}", "nvidia/reranker")
        path = path.replace("{tag}", "0")
        return path.replace("{name}", "app.css").replace("{name:path}", "qwen3-rerank")

    def state(self) -> list[Any]:
        """What may not change behind a closed door."""
        tables = (schema.accounts, schema.keys, schema.entries, schema.invites, schema.admin_log)
        with self.store.database.read() as connection:
            return [connection.execute(table.select().order_by(*table.primary_key)).all() for table in tables]


@pytest.fixture(scope="module")
def fort(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fort]:
    folder = tmp_path_factory.mktemp("fort")
    card, file = folder / "rerankd.toml", folder / "rerankd.db"
    card.write_text(CARD)
    store = open_store(f"sqlite:///{file}")
    accounts, keys = store.accounts, store.keys
    admin = accounts.create("admin@example.com", "Ada", PASSWORD, "admin")
    user = accounts.create("user@example.com", "Ursula", PASSWORD)
    gone = accounts.create("gone@example.com", "", PASSWORD)
    secrets = {
        "good": keys.create(user.id, "good")[1],
        "confined": keys.create(user.id, "confined", models=["another-model"])[1],
        "disabled": keys.create(gone.id, "of a disabled account")[1],
    }
    revoked, secrets["revoked"] = keys.create(user.id, "revoked")
    keys.revoke(revoked.id)
    expired, secrets["expired"] = keys.create(user.id, "expired", datetime.now(UTC) + timedelta(days=1))
    with store.database.transaction() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(update(schema.keys).where(schema.keys.c.id == expired.id).values(expires=past))
    accounts.disable(gone.id)
    admin_key = keys.create(admin.id, "the administrator's")[0].id
    options = ("--accounts", "--database", f"sqlite:///{file}", "--config", str(card), "--sign-up", "invite")
    server = start_server("--model", "embedded", *options, "--max-body-mb", "1")
    yield Fort(server, store, file, admin, user, admin_key, secrets)
    store.database.close()


def test_every_route_has_a_kind_of_door(fort: Fort) -> None:
    settings = ServerSettings(accounts=True, sign_up="invite")
    app = create_app(settings, Models(ServedModel(lambda _: scorer_of(NumberedModel()))), fort.store)
    found = set(routes_of(app.routes))
    kinds = (OPEN, KEYED, RERANK, SIGNED_IN, ADMIN)
    assert found == set().union(*kinds)
    assert len(found) == sum(map(len, kinds)), "a route has two kinds"
    described = httpx2.get(f"{fort.server.url}/openapi.json").json()["paths"]
    told = {(method.upper(), path) for path, methods in described.items() for method in methods}
    assert told == {(method, path.replace(":path}", "}")) for method, path in KEYED | RERANK | OPEN} & told
    assert told >= {route for route in RERANK if "{" not in route[1]}  # the others spell a path that is told


def test_a_provider_adds_five_open_routes(fort: Fort) -> None:
    registered: dict[str, Any] = {"oidc_issuer": "https://id.example", "oidc_client_id": "id"}
    registered["oidc_client_secret"] = "secret"
    models = Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    without, having = (
        set(routes_of(create_app(ServerSettings(accounts=True, **more), models, fort.store).routes))
        for more in ({}, registered)
    )
    reading = {
        ("GET", path) for path in ("/sign-in/oidc", "/sign-in/oidc/callback", "/sign-in/confirm", "/sign-out/oidc")
    }
    assert having - without == reading | {("POST", "/sign-in/confirm")}


def test_open_routes_ask_for_nothing(fort: Fort) -> None:
    with fort.client() as client:
        for method, path in sorted(OPEN):
            status = client.request(method, fort.path(path), headers=FORM).status_code
            assert status == (403 if method == "POST" and path.startswith(("/sign", "/reset", "/join")) else 200), (
                path
            )  # no form of ours


def told(response: httpx2.Response) -> tuple[Any, ...]:
    """All that a caller can learn from a reply."""
    request_id = response.headers.get("x-request-id", "no id")
    text = response.text.replace(request_id, "ID").replace(request_id.replace("-", ""), "ID")
    names = frozenset(response.headers) - {"date"}
    return response.status_code, text, names, response.headers.get("content-length")


@pytest.mark.parametrize("route", sorted(KEYED | RERANK), ids=" ".join)
def test_a_bad_key_is_a_bad_key_whatever_is_wrong_with_it(fort: Fort, route: Route) -> None:
    method, path = route[0], fort.path(route[1])
    good, body = fort.keys["good"], None if method == "GET" else CALL
    with fort.client() as client:

        def ask(key: str | None) -> httpx2.Response:
            return client.request(method, path, json=body, headers={"authorization": f"Bearer {key}"} if key else {})

        assert ask(None).status_code == 401
        bad = [fort.keys["revoked"], fort.keys["expired"], fort.keys["disabled"]]
        bad += ["rk-" + "a" * 43, good[:-1], good + "a", good.swapcase(), "' OR 1=1 --", "a" * 10_000]
        answers = {told(ask(key)) for key in bad}
        assert len(answers) == 1
        [(status, text, _, _)] = answers
        assert status == 401
        assert not re.search("revoked|expired|disabled|account", text, re.IGNORECASE)
        assert ask(good).status_code in (200, 400, 404, 422)
        # A key is taken from its header only. (This one is another, since addresses are logged.)
        _, key = fort.store.keys.create(fort.user.id, "in an address")
        assert client.request(method, f"{path}?api_key={key}&key={key}", json=body).status_code == 401
        in_cookie = {"cookie": f"rerankd-session={good}; api_key={good}"}
        assert client.request(method, path, json=body, headers=in_cookie).status_code == 401


BODIES: tuple[dict[str, Any], ...] = (
    {"query": "q", "documents": ["d"]},
    {"queries": "q", "documents": ["d"]},
    {"query": "q", "texts": ["d"]},
    {"query": "q", "input": ["d"]},
    {"inputs": [["q", "d"]]},
    {"query": {"text": "q"}, "passages": [{"text": "d"}]},
    {"input": {"query": "q", "documents": ["d"]}, "parameters": {}},
)
"""What any dialect takes is among them."""


@pytest.mark.parametrize("route", sorted(RERANK), ids=" ".join)
def test_a_key_for_another_model_opens_no_surface(fort: Fort, route: Route) -> None:
    """Not by the name that it may use either, where a surface answers to any name."""
    before = fort.store.ledger.check(), len(fort.state()[2])
    bodies = [{**body, "model": name} for body in BODIES for name in ("another-model", "qwen3-rerank", "unheard-of")]
    bodies += BODIES
    with fort.client(fort.keys["good"]) as free, fort.client(fort.keys["confined"]) as confined:
        statuses = [free.request(*route, json=body).status_code for body in bodies]
        assert 200 in statuses, "this shows nothing"
        num_entries = len(fort.state()[2])
        refused = [confined.request(*route, json=body) for body in bodies]
    assert {answer.status_code for answer in refused} <= {400, 403, 404, 422}
    assert 403 in {answer.status_code for answer in refused}
    assert [one for one, other in zip(statuses, refused, strict=True) if one == 200 and other.status_code != 403] == []
    assert fort.store.ledger.check() == before[0] == []
    assert len(fort.state()[2]) == num_entries, "nothing is charged"


# Sessions.


@pytest.mark.parametrize("route", sorted(SIGNED_IN | ADMIN), ids=" ".join)
def test_pages_are_for_who_is_signed_in_now(fort: Fort, route: Route) -> None:
    method, path = route[0], fort.path(route[1])
    store = fort.store
    gone = store.accounts.by_email("gone@example.com")
    assert gone
    closed, expired = store.sessions.open(fort.admin.id), store.sessions.open(fort.admin.id)
    store.sessions.close(closed)
    hashed = hashlib.sha256(expired.encode()).digest()
    with fort.store.database.transaction() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        connection.execute(update(schema.sessions).where(schema.sessions.c.hash == hashed).values(expires=past))
    before = fort.state()
    for token in (None, "", "a" * 43, closed, expired, store.sessions.open(gone.id), fort.keys["good"]):
        cookies = {} if token is None else {"rerankd-session": token}
        with httpx2.Client(base_url=fort.server.url, cookies=cookies) as client:
            response = client.request(method, path, headers=FORM, content=b"csrf=" if method == "POST" else None)
        assert (response.status_code, response.headers["location"].partition("?")[0]) == (303, "/sign-in")
        assert response.content == b""
    assert fort.state() == before


@pytest.mark.parametrize("route", sorted(ADMIN), ids=" ".join)
def test_administration_is_for_administrators(fort: Fort, route: Route) -> None:
    before = fort.state()
    with fort.client(account=fort.user) as client:
        form = {"csrf": fort.csrf(client), "email": "x@example.com", "amount": "5", "role": "admin", "disabled": "yes"}
        form |= {"password": "a new password", "requests_per_minute": "1"}
        response = client.request(route[0], fort.path(route[1]), data=form if route[0] == "POST" else None)
    assert response.status_code == 403 and "for administrators" in response.text
    assert fort.state() == before


def test_another_accounts_things_are_not_there(fort: Fort) -> None:
    before = fort.state()
    with fort.client(account=fort.user) as user, fort.client(account=fort.admin) as admin:
        form = {"csrf": fort.csrf(user)}
        answers = [user.post(f"/keys/{number}/revoke", data=form) for number in (fort.admin_key, 10**17)]
        assert [answer.status_code for answer in answers] == [400, 400]
        texts = {re.sub(r"no key \d+", "", answer.text) for answer in answers}
        assert len(texts) == 1, "nobody learns which numbers are somebody's"
        for path in ("/keys", "/usage", "/usage.csv", "/account"):
            assert "administrator&#39;s" not in user.get(path).text and "admin@example" not in user.get(path).text
        wrong_owner = f"/admin/accounts/{fort.user.id}/keys/{fort.admin_key}/revoke"
        assert admin.post(wrong_owner, data={"csrf": fort.csrf(admin)}).status_code == 400
    assert fort.state() == before


@pytest.mark.parametrize("number", [str(2**63), "9" * 30, "9" * 5000, "-1", "1.5", "٣"])
def test_numbers_that_no_row_has(fort: Fort, number: str) -> None:
    with fort.client(account=fort.admin) as admin:
        form = {"csrf": fort.csrf(admin)}
        assert admin.get(f"/admin/accounts/{number}").status_code == 404
        for path in (f"/keys/{number}/revoke", f"/admin/accounts/1/keys/{number}/revoke"):
            assert admin.post(path, data=form).status_code == 404


# Pages and their headers.


class Inline(html.parser.HTMLParser):
    """Finds what a strict policy would not run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.num_elements = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.num_elements += 1
        names = dict(attributes)
        if tag in ("style", "base", "iframe", "object", "embed") or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [name for name in names if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action", "formaction"):
            own = "/(?!/)|#|otpauth://totp/" if tag == "a" else "/(?!/)|#"  # an authenticator app opens the link
            if not re.match(own, names.get(name) or "/"):
                self.found.append(f"{name}={names[name]}")


def test_every_page_keeps_to_itself(fort: Fort) -> None:
    pages = []
    with fort.client(account=fort.admin) as admin, fort.client() as stranger:
        answers = [(admin, path) for method, path in sorted(OPEN | SIGNED_IN | ADMIN) if method == "GET"]
        answers += [(stranger, path) for path in ("/", "/rates", "/sign-in", "/sign-up")]
        for client, path in answers:
            response = client.get(fort.path(path))
            if not response.headers.get("content-type", "").startswith("text/html"):
                continue
            pages.append(path)
            assert response.status_code == 200
            policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == policy["base-uri"] == "'none'"
            assert policy["form-action"] == "'self'" and "script-src" not in policy
            if path != "/docs":  # Swagger UI styles what it draws
                assert "unsafe" not in str(policy)
            assert response.headers["x-frame-options"] == "DENY"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-store"
            inline = Inline(response.text)
            assert inline.found == [] and inline.num_elements > 5, path
    assert set(pages) >= {"/", "/rates", "/docs", "/sign-in", "/keys", "/usage", "/account", "/admin"}


def sign_in(client: httpx2.Client) -> httpx2.Response:
    client.get("/sign-in")
    form = {"csrf": client.cookies["rerankd-form"], "email": "user@example.com", "password": PASSWORD}
    return client.post("/sign-in", data=form)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies(fort: Fort, scheme: str) -> None:
    """Behind a proxy on this machine that ends TLS, and without one."""
    forwarded = {"x-forwarded-proto": "https"} if scheme == "https" else {}
    with fort.client() as client:
        client.headers.update(forwarded)
        page = client.get("/sign-in")
        token = page.headers["set-cookie"].partition("=")[2].partition(";")[0]
        form = {"csrf": token, "email": "user@example.com", "password": PASSWORD}
        response = client.post("/sign-in", data=form, headers={"cookie": f"rerankd-form={token}"})
    assert response.status_code == 303
    for cookie in (page.headers["set-cookie"], response.headers["set-cookie"]):
        parts = {part.strip().lower().partition("=")[0]: part for part in cookie.split(";")}
        assert {"httponly", "samesite", "path"} <= set(parts) and "domain" not in parts
        assert parts["samesite"].strip().lower() == "samesite=lax"
        assert ("secure" in parts) == (scheme == "https")


def test_no_address_comes_from_the_caller(fort: Fort) -> None:
    """Not from Host, nor from what proxies add; a sign-in leads to this server's own pages only."""
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    with fort.client() as client:
        for method, path in sorted(OPEN | SIGNED_IN | ADMIN):
            if method == "GET":
                response = client.get(fort.path(path), headers=evil)
                assert "evil.example" not in response.text + str(response.headers), path
                assert response.headers.get("location", "/").startswith("/")
        for path in ("//evil.example/keys", "/\\evil.example", "/%2f%2fevil.example", "/keys%0d%0aset-cookie:%20a=b"):
            response = client.get(fort.server.url + path)
            assert response.status_code == 404 and "set-cookie" not in response.headers


@pytest.mark.parametrize("route", sorted(RERANK), ids=" ".join)
def test_nothing_that_is_sent_begins_a_header_or_a_line_of_the_log(fort: Fort, route: Route) -> None:
    forged = "x\r\nset-cookie: a=b\n2026-01-01 00:00:00,000 INFO forged \x1b[31m\u2028forged"
    before = len(fort.server.log)
    with fort.client(fort.keys["good"]) as client:
        for body in BODIES:
            names = {"model": forged, "request_id": forged, "id": forged, "user": forged, forged: 1}
            answers = [client.request(*route, json={**body, **names}), client.request(*route, json={**body, forged: 1})]
            for response in answers:
                assert "set-cookie" not in response.headers and "forged" not in response.headers.get("x-request-id", "")
                assert all(value.isprintable() for value in response.headers.values())
        for wrong in ("a b", "é", "a" * 201):
            given = client.request(*route, json=CALL, headers=[(b"x-request-id", wrong.encode())])
            assert given.headers["x-request-id"] != wrong
        client.get("/version")
    fort.server.wait_until(lambda: any("path=/version" in line for line in fort.server.log[before:]))
    for line in fort.server.log[before:]:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} (INFO|WARNING) ", line) and not line.startswith(
            "2026-01-01"
        )
        assert line.rstrip("\n").isprintable()


# Bombs.


def bomb(server: Server, head: str, chunk: bytes, seconds: float = 20) -> tuple[bytes, bool]:
    """Sends a head and then a chunk again and again. Returns the answer, and whether the server hung up.

    It has to do so within 64 MB; what the kernels hold of a connection are some MB.
    """
    url = httpx2.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=seconds) as raw:
        raw.sendall(head.encode())
        try:
            for _ in range(64_000_000 // len(chunk)):
                raw.sendall(chunk)
        except ConnectionError:
            hung_up = True
        else:
            hung_up = False
        try:
            return raw.recv(65536), hung_up
        except OSError:
            return b"", hung_up


WITH_BODIES = {one for one in OPEN | KEYED | RERANK | SIGNED_IN | ADMIN if one[0] != "GET"}
ENDLESS = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"


@pytest.mark.parametrize("route", sorted(WITH_BODIES), ids=" ".join)
@pytest.mark.parametrize("key", ["", "good"])
def test_a_body_without_end_is_not_read(fort: Fort, route: Route, key: str) -> None:
    """Also where nothing reads a body."""
    head = f"{route[0]} {fort.path(route[1])} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    head += f"authorization: Bearer {fort.keys[key]}\r\ncontent-type: application/json\r\n" if key else ""
    is_form = route in OPEN | SIGNED_IN | ADMIN and route[1] != "/ping" and not key
    head += "content-type: application/x-www-form-urlencoded\r\n" if is_form else ""
    answer, hung_up = bomb(fort.server, f"{head}\r\n", ENDLESS)
    assert hung_up
    if answer:  # else it was lost when the connection broke
        status = int(answer.split()[1])
        assert status == 200 if route[1] == "/ping" else status in (400, 401, 403, 413, 415, 422)
        assert status == 401 or key or route not in KEYED | RERANK


@pytest.mark.parametrize("route", sorted(one for one in KEYED | RERANK if one[0] != "GET"), ids=" ".join)
@pytest.mark.parametrize("key", ["", "good"])
def test_a_promised_body_that_is_too_large_is_refused_before_it_comes(fort: Fort, route: Route, key: str) -> None:
    url = httpx2.URL(fort.server.url)
    head = f"{route[0]} {route[1]} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000001\r\n"
    head += f"authorization: Bearer {fort.keys[key]}\r\ncontent-type: application/json\r\n" if key else ""
    with socket.create_connection((url.host, url.port or 80), timeout=60) as raw:
        raw.sendall(f"{head}\r\n".encode())
        status = int(raw.recv(65536).split()[1])
    assert status in (400, 413, 422) if key else status == 401


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        ("GET /health HTTP/1.1\r\nhost: x\r\n", b"x-a: b\r\n" * 1000),
        ("GET /health HTTP/1.1\r\nhost: x\r\nx-a: ", b"b" * 0x10000),
        ("GET /health HTTP/1.1\r\nhost: x\r\n", b"b" * 0x10000),
        ("GET /", b"b" * 0x10000),
        ("POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-a: b\r\n" * 1000),
        ("POST /tokenize HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-a: ", b"b" * 0x10000),
    ],
    ids=["headers", "a header", "a name", "an address", "trailers", "a trailer"],
)
def test_a_head_without_end_is_not_read(fort: Fort, head: str, chunk: bytes) -> None:
    _, hung_up = bomb(fort.server, head, chunk)
    assert hung_up
    assert httpx2.get(f"{fort.server.url}/health").status_code == 200


def test_a_head_as_browsers_send_it_is_read(fort: Fort) -> None:
    with fort.client() as client:
        for _ in range(3):  # on one connection
            response = client.get("/health", headers={"cookie": "a=" + "b" * 30_000})
            assert response.status_code == 200
        response = client.post(CALLED, json={**CALL, "documents": ["d" * 900_000]})
        assert response.status_code == 401 and "connection" not in response.headers
        stream = client.post(CALLED, content=iter([b"{"] * 10))
        assert stream.status_code == 401


CALLED = "/v1/rerank"


def filled(kind: type[BaseModel]) -> dict[str, Any]:
    """A body in which every field is a long list of what belongs in none."""
    nested = {"input": ("NativeInput",), "parameters": ("NativeParameters",)}
    body: dict[str, Any] = {name: [[None] * 1000] * 1000 for name in kind.model_fields}
    for name, field in kind.model_fields.items():
        parts = [field.annotation, *getattr(field.annotation, "__args__", ())]
        for part in parts:
            if isinstance(part, type) and issubclass(part, BaseModel) and part.__name__ in nested.get(name, ()):
                body[name] = filled(part)
    return body


KINDS = {one.body for dialects in api_routes(ApiSettings()).values() for one in dialects}


@pytest.mark.parametrize("kind", sorted({*KINDS, TokenizeBody, DetokenizeBody}, key=str), ids=lambda one: one.__name__)
def test_a_million_mistakes_are_not_listed(kind: type[BaseModel]) -> None:
    """Each would take a kilobyte."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(filled(kind))
    assert caught.value.error_count() < 100


@pytest.mark.parametrize(
    "content",
    [
        b'{"query": "q", "documents": ' + b"[" * 400_000,
        b'{"query": "q", "documents": [' + b"9" * 900_000 + b"]}",
        b'{"query": "q", "documents": ["d"], "top_n": 1e999999999}',
        b'{"query": "q", "documents": [' + b"1," * 400_000 + b"1]}",
        b'{"query": "q", "documents": [' + b"[]," * 300_000 + b"[]]}",
        b'{"query": "q", "documents": [' + b"{}," * 300_000 + b"{}]}",
        b'{"query": "q", "documents": [' + b'"d",' * 100_000 + b'"d"]}',
        gzip.compress(b" " * 50_000_000),
    ],
    ids=["nesting", "a number", "an exponent", "numbers", "lists", "objects", "documents", "compressed"],
)
def test_small_bodies_that_mean_much_work(fort: Fort, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    headers |= {"content-encoding": "gzip"} if content.startswith(b"\x1f") else {}
    with fort.client(fort.keys["good"]) as client:
        response = client.post(CALLED, content=content, headers=headers)
    assert response.status_code in (400, 422) and len(response.content) < 20_000


def test_a_form_is_small(fort: Fort) -> None:
    with fort.client(account=fort.user) as client:
        form = f"csrf={fort.csrf(client)}&name=".encode()
        assert client.post("/keys", content=form + b"a" * 65_536, headers=FORM).status_code == 413
        compressed = client.post("/keys", content=gzip.compress(form), headers={**FORM, "content-encoding": "gzip"})
        assert compressed.status_code in (400, 403)


# Comparisons.


class Unequal(str):
    """A text whose comparison character by character is a mistake: it tells by its time how much of it was right."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared by ==")

    __ne__ = __eq__


def test_the_static_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Secret, "get_secret_value", lambda self: Unequal(self._secret_value))
    app = create_app(
        ServerSettings(api_key=Secret("sesame")), Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    )
    client = TestClient(app)
    for key, status in (("sesame", 503), ("sesamE", 401), ("s", 401), ("", 401), ("é", 401)):  # it is not loading
        headers = [(b"authorization", f"Bearer {key}".encode())]
        assert client.post(CALLED, json=CALL, headers=headers).status_code == status


def test_what_is_hashed_is_compared_as_a_hash(store: Store) -> None:
    """Keys, sessions and invitations are looked up by their hashes, the only thing that the database sees."""
    account = store.accounts.create("a@example.com", role="admin")
    _, secret = store.keys.create(account.id, "a key")
    session, invite = store.sessions.open(account.id), store.invites.create(account.id)
    for ask, token in ((store.keys.find, secret), (store.sessions.find, session), (store.invites.find, invite)):
        assert ask(Unequal(token))
        assert not ask(Unequal(token[:-1]))
        assert not ask(Unequal(hashlib.sha256(token.encode()).hexdigest()))


# What is written down.


def busy_life(fort: Fort) -> tuple[set[str], str]:
    """Everything that goes right and wrong on a server: the secrets in it, and all replies but those that show one."""
    secrets = {*fort.keys.values(), PASSWORD, "not the password", "a wrong-key-0815"}
    replies: list[httpx2.Response] = []
    with fort.client() as stranger, fort.client(account=fort.admin) as admin:
        secrets |= {admin.cookies["rerankd-session"], stranger.cookies.get("rerankd-session") or PASSWORD}
        for key in (*fort.keys.values(), "a wrong-key-0815"):
            header = {"authorization": f"Bearer {key}"}
            for method, path in sorted(KEYED | RERANK):
                replies += [stranger.request(method, fort.path(path), json=CALL, headers=header)]
            replies += [stranger.post(CALLED, content=b"{", headers=header), stranger.delete(CALLED, headers=header)]
        replies.append(stranger.get("/sign-in"))
        for password in ("not the password", PASSWORD):
            form = {"csrf": stranger.cookies["rerankd-form"], "email": "user@example.com", "password": password}
            replies.append(stranger.post("/sign-in", data=form))
        secrets.add(stranger.cookies["rerankd-session"])
        csrf = fort.csrf(admin)
        admin.post("/keys", data={"csrf": csrf, "name": "busy"})
        [key] = re.findall(r'id="secret"[^>]*>(rk-[^<]+)<', admin.get("/keys").text)
        invited = admin.post("/admin/invites", data={"csrf": csrf})
        [invitation] = re.findall(r"/sign-up#([\w-]+)<", invited.text)
        secrets |= {key, invitation}
        replies.append(admin.post(f"/admin/accounts/{fort.user.id}/password", data={"csrf": csrf, "password": "short"}))
        replies.append(admin.post("/account/password", data={"csrf": csrf, "password": "not the password"}))
        with sqlite3.connect(fort.file) as database:  # now nothing works
            database.execute("ALTER TABLE keys RENAME TO lost")
        try:
            for method, path in sorted(KEYED | RERANK):
                header = {"authorization": f"Bearer {key}"}
                replies.append(stranger.request(method, fort.path(path), json=CALL, headers=header))
            replies += [admin.get(path) for path in ("/keys", "/admin", "/account")]
        finally:
            with sqlite3.connect(fort.file) as database:
                database.execute("ALTER TABLE lost RENAME TO keys")
        assert {200, 400, 401, 403, 503} <= {reply.status_code for reply in replies}
        header = {"authorization": f"Bearer {key}"}
        replies += [
            admin.get(fort.path(path), headers=header) for method, path in sorted(OPEN | KEYED) if method == "GET"
        ]
        replies += [admin.get(fort.path(path)) for method, path in sorted(SIGNED_IN | ADMIN) if method == "GET"]
        replies.append(admin.get("/metrics"))
    assert all(reply.status_code != 500 for reply in replies)
    return secrets, "".join(reply.text + str(reply.headers) for reply in replies if "set-cookie" not in reply.headers)


def test_no_secret_is_written_down(fort: Fort) -> None:
    """Not in the log, a reply, the metrics, the description, or the database."""
    secrets, replies = busy_life(fort)
    fort.server.wait_until(lambda: any("path=/usage.csv" in line for line in fort.server.log))
    log = "".join(fort.server.log)
    stored = b"".join(file.read_bytes() for file in fort.file.parent.iterdir()).decode("latin-1")
    assert "busy" in replies and "busy" in stored and "path=/v1/rerank" in log
    for secret in secrets:
        for where, text in (("log", log), ("replies", replies), ("database", stored)):
            assert secret not in text, f"{secret} is in the {where}"
    mode = {file.name: file.stat().st_mode & 0o077 for file in fort.file.parent.glob("rerankd.db*")}
    assert len(mode) >= 2 and set(mode.values()) == {0}


def test_an_error_within_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """With the key and the text of a call that breaks the program."""

    def fault(document: str) -> None:
        raise RuntimeError("it broke")

    class Broken(NumberedModel):
        def encode(self, *_: Any) -> Any:
            raise KeyError("it broke")

    for model in (NumberedModel(fault), Broken()):
        with serving(lambda _, model=model: scorer_of(model), api_key=Secret("sesame-4711")) as client:  # type: ignore[misc]
            headers = {"authorization": "Bearer sesame-4711"}
            response = client.post(CALLED, json={"query": "my secret query", "documents": ["1"]}, headers=headers)
            assert response.status_code == 500
            metrics = client.get("/metrics").text
        for text in (caplog.text, response.text, metrics):
            assert "sesame-4711" not in text and "my secret query" not in text
        assert "it broke" not in response.text and "Traceback" not in response.text
        assert "it broke" in caplog.text


def test_the_passwords_of_other_servers_are_told_nobody(
    start_server: StartServer, new_postgres: Callable[[], str]
) -> None:
    url = new_postgres().replace("rerankd@", "rerankd:sesame-db@")
    port = free_port()
    with running_redis(port):  # asks for no password: it refuses one
        options = ("--accounts", "--database", url, "--redis", f"redis://:sesame-redis@127.0.0.1:{port}/0")
        server = start_server("--model", "embedded", *options, "--requests-per-minute", "1000")
        store = open_store(url)
        server.key = store.keys.create(store.accounts.create("a@example.com").id, "a key")[1]
        replies = [server.post(CALLED, CALL), server.post(CALLED, CALL, key="wrong")]
        replies += [httpx2.get(server.url + path) for path in ("/metrics", "/openapi.json", "/health", "/", "/rates")]
        assert [reply.status_code for reply in replies[:2]] == [503, 401]
        store.database.close()
        server.end()
    told = "".join(server.log) + "".join(reply.text for reply in replies)
    assert "Redis does not answer" in told
    assert "sesame" not in told


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--database", "postgresql://rerankd:sesame@127.0.0.1:1/rerankd"),
        ("--database", "postgresql://127.0.0.1:1/rerankd?password=sesame"),
        ("--database", "mysql://rerankd:sesame@127.0.0.1:1/rerankd?password=sesame"),
        ("--database", "rerankd:sesame@127.0.0.1"),
        ("--redis", "https://:sesame@127.0.0.1:1/0"),
        ("--redis", "redis://:sesame@127.0.0.1:one/0"),
        ("--port", "sesame"),
    ],
)
def test_a_start_that_fails_tells_no_password(option: str, value: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rerankd", "serve", "--model", "embedded", "--accounts", option, value]
    if option != "--database":
        command += ["--database", f"sqlite:///{tmp_path / 'a.db'}"]
    skip_if_quick("starts the command")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and option.removeprefix("--") in done.stderr.lower()
    assert option == "--port" or "sesame" not in done.stderr + done.stdout


# Races.


def together(num: int, act: Callable[[], Any]) -> list[Any]:
    """So many at once: what each returned, or the InvalidRequest that it met."""
    barrier, outcomes = threading.Barrier(num), []

    def run() -> None:
        barrier.wait()
        try:
            outcomes.append(act())
        except InvalidRequest as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_what_is_done_twice_at_once(store: Store) -> None:
    keys, ledger = store.keys, store.ledger
    account = store.accounts.create("a@example.com")
    ledger.add_credits(account.id, 1000)
    key, secret = keys.create(account.id, "a key")
    assert together(8, lambda: keys.revoke(key.id, account.id)) == [None] * 8
    assert keys.find(secret) is None
    together(8, lambda: ledger.add_credits(account.id, -100))
    after = store.accounts.by_id(account.id)
    assert after and after.balance == 200 and ledger.check() == []
    store.accounts.set_role(account.id, "admin")
    invitation = store.invites.create(account.id)
    names = iter(range(8))
    made = together(8, lambda: store.invites.use(invitation, f"{next(names)}@example.com", "", PASSWORD))
    assert sum(isinstance(one, Account) for one in made) == 1, "an invitation makes one account"
    same = together(4, lambda: store.accounts.create("same@example.com"))
    assert sum(isinstance(one, Account) for one in same) == 1


def test_a_key_that_is_revoked_while_its_calls_run(fort: Fort) -> None:
    key, secret = fort.store.keys.create(fort.user.id, "in use")
    revoked = threading.Event()
    statuses: list[int] = []
    late: list[int] = []

    def call() -> None:
        with fort.client(secret) as client:
            while True:
                begun_after = revoked.is_set()
                status = client.post(CALLED, json=CALL).status_code
                (late if begun_after else statuses).append(status)
                if begun_after:
                    return

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    fort.server.wait_until(lambda: statuses.count(200) >= 20)
    fort.store.keys.revoke(key.id, fort.user.id)
    revoked.set()
    for thread in threads:
        thread.join()
    assert late == [401] * 4 and set(statuses) <= {200, 401}
    charged = [entry for entry in fort.state()[2] if entry.key_id == key.id]
    assert len(charged) == statuses.count(200) and fort.store.ledger.check() == []
    account = fort.store.accounts.by_id(fort.user.id)
    assert account and account.reserved == 0


def test_an_invitation_ends_with_who_made_it(store: Store) -> None:
    store.accounts.create("root@example.com", role="admin")
    boss = store.accounts.create("boss@example.com", role="admin")
    invitation = store.invites.create(boss.id)
    ways: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: store.accounts.disable(boss.id), lambda: store.accounts.enable(boss.id)),
        (lambda: store.accounts.set_role(boss.id, "user"), lambda: store.accounts.set_role(boss.id, "admin")),
    ]
    for take, give_back in ways:
        take()
        assert store.invites.find(invitation) is None
        with pytest.raises(InvalidRequest, match="not valid"):
            store.invites.use(invitation, "boss2@example.com", "", PASSWORD)
        give_back()
    assert store.invites.use(invitation, "new@example.com", "", PASSWORD).role == "user"
