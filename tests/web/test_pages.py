"""What the pages answer, without a browser: doors, forms, headers."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rerankd.accounts.accounts import Account
from rerankd.accounts.decision import CallCost
from rerankd.config import ServerSettings
from rerankd.prices import PriceFile
from rerankd.types import CallLimits
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes
from rerankd.web.throttle import PER_ADDRESS, PER_EMAIL, WINDOW_S, Throttle
from support.site import PASSWORD, Site, loaded_models, loading_models

PRIVATE = (
    "/keys",
    "/usage",
    "/usage.csv",
    "/usage-by-day.csv",
    "/statement",
    "/calls",
    "/admin/calls",
    "/account",
    "/admin",
    "/admin/status",
    "/admin/usage",
    "/admin/usage.csv",
    "/admin/usage-by-day.csv",
    "/admin/server",
    "/admin/log",
    "/admin/accounts/1",
)
PUBLIC = ("/", "/rates", "/sign-in", "/sign-up")
ADMINS = tuple(path for path in PRIVATE if path.startswith("/admin"))


def without_accounts(ready: bool = True) -> TestClient:
    app = FastAPI(openapi_url=None)
    app.include_router(
        web_routes(WebContext(ServerSettings(), PriceFile(None), loaded_models() if ready else loading_models()))
    )
    return TestClient(app, follow_redirects=False)


def post(site: Site, client: TestClient, path: str, **fields: str) -> Any:
    """A form as its page sends it."""
    return client.post(path, data={"csrf": site.csrf(client), **fields})


def sign_in(client: TestClient, email: str, password: str, **fields: str) -> Any:
    page = client.get("/sign-in")
    token = client.cookies["rerankd-form"]
    assert f'value="{token}"' in page.text
    return client.post("/sign-in", data={"csrf": token, "email": email, "password": password, **fields})


def charge(site: Site, account: Account, tokens: int, key_name: str = "a key") -> int:
    """A call that was charged. Returns its cost."""
    _, secret = site.store.keys.create(account.id, key_name)
    caller = site.store.keys.find(secret)
    assert caller
    price = site.prices.current().of(["qwen3-rerank"])
    reservation = site.store.ledger.reserve(caller, price, CallCost(tokens, secret, b"x"))
    return site.store.ledger.settle(reservation).cost


def test_every_page_keeps_to_itself(site: Site) -> None:
    admin = site.visitor(site.admin)
    for path in (*PUBLIC, *PRIVATE, "/static/app.css", "/static/playground.js"):
        response = (site.visitor() if path in PUBLIC else admin).get(path)
        assert response.status_code == 200, path
        policy = response.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        if not path.startswith("/static"):
            assert response.headers["cache-control"] == "no-store"
        if response.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?![^>]* src=\"/)|<style| style=| on\w+=|https?://", response.text), path


def test_static_files(site: Site) -> None:
    client = site.visitor()
    response = client.get("/static/app.css")
    assert response.headers["content-type"].startswith("text/css")
    again = client.get("/static/app.css", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2Froutes.py", "%2e%2e/routes.py", "../routes.py"):
        assert client.get(f"/static/{name}").status_code == 404


def test_browsers_keep_static_files_until_they_change(site: Site) -> None:
    client = site.visitor()
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', client.get("/").text)
    assert len(links) > 15
    for link in links:
        assert "immutable" in client.get(link).headers["cache-control"], link
    old = client.get(re.sub(r"/static/\w+/", "/static/0123456789ab/", links[0]))  # of a page from before an upgrade
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")


def test_the_description_of_the_api_has_the_sites_header(site: Site) -> None:
    page = site.visitor(site.user).get("/docs").text
    assert 'href="/usage"' in page and 'href="/docs" aria-current="page"' in page


def test_without_accounts_there_are_two_pages() -> None:
    client = without_accounts()
    assert "Sign in" not in client.get("/").text
    assert "Qwen/Qwen3-Reranker-0.6B" in client.get("/rates").text
    for path in (*PRIVATE, "/sign-in", "/sign-up"):
        assert client.get(path).status_code == 404
    assert client.post("/").status_code == 405  # another dialect's


def test_without_accounts_no_database_is_loaded() -> None:
    code = "import sys, rerankd.web.routes; print({'sqlalchemy', 'alembic', 'argon2'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_while_the_model_loads() -> None:
    client = without_accounts(ready=False)
    assert "The model is loading" in client.get("/").text
    assert "reading the weights, 40%" in client.get("/rates").text


def test_the_price_list_is_the_live_one(site: Site, subtests: pytest.Subtests) -> None:
    client = site.visitor()
    page = client.get("/rates").text
    for shown in ("0.1 USD", "1,000,000", "100+", "For semantic search and RAG.", "another-model", "8,192", "120,000"):
        with subtests.test(shown):
            assert shown in page
    config = site.settings.config
    assert config
    config.write_text(config.read_text().replace("input_price = 0.1", "input_price = 0.25"))
    assert "0.25 USD" in client.get("/rates").text


def test_doors(site: Site) -> None:
    stranger, user = site.visitor(), site.visitor(site.user)
    for path in PRIVATE:
        response = stranger.get(path)
        assert response.status_code == 303
        assert response.headers["location"] == f"/sign-in?{urlencode({'next': path})}"
    for path in ADMINS:
        assert user.get(path).status_code == 403
    for path in ("/admin/accounts", "/admin/invites", f"/admin/accounts/{site.user.id}/credit"):
        response = post(site, user, path, email="new@example.com", amount="100")
        assert response.status_code == 403
    assert site.store.accounts.by_email("new@example.com") is None
    assert site.visitor(site.admin).get("/admin/accounts/99").status_code == 404
    assert site.visitor(site.admin).get(f"/admin/accounts/{10**30}").status_code == 404


def test_sign_in_and_out(site: Site) -> None:
    client = site.visitor()
    response = sign_in(client, " User@Example.com ", PASSWORD, next="/usage")
    assert (response.status_code, response.headers["location"]) == (303, "/usage")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "secure" not in cookie
    assert client.get("/usage").status_code == 200
    assert client.get("/sign-in").status_code == 303
    token = client.cookies["rerankd-session"]
    assert post(site, client, "/sign-out").status_code == 303
    assert "rerankd-session" not in client.cookies
    assert site.store.sessions.find(token) is None


def test_cookies_over_https_are_secure(site: Site) -> None:
    response = sign_in(site.visitor(https=True), "user@example.com", PASSWORD)
    assert "secure" in response.headers["set-cookie"].lower()


@pytest.mark.parametrize("after", ["https://example.com", "//example.com", "/\\example.com", "/admin/../..", "keys"])
def test_a_sign_in_leads_nowhere_else(site: Site, after: str) -> None:
    assert sign_in(site.visitor(), "user@example.com", PASSWORD, next=after).headers["location"] == "/"


def test_a_wrong_password_tells_nothing(site: Site) -> None:
    site.store.accounts.disable(site.store.accounts.create("off@example.com", "", PASSWORD).id)
    site.store.accounts.create("keys@example.com")
    answers = set()
    for email in ("user@example.com", "nobody@example.com", "off@example.com", "keys@example.com", "no address"):
        response = sign_in(site.visitor(), email, PASSWORD if email.startswith("off") else "wrong password")
        answers.add((response.status_code, re.sub(r'value="[^"]*"', "", response.text)))
    ((status, text),) = answers
    assert status == 403 and "The e-mail address, the password or the code is wrong." in text


def test_who_guesses_is_slowed_down(site: Site) -> None:
    client = site.visitor()
    for email in ("user@example.com", "nobody@example.com"):
        for _ in range(PER_EMAIL):
            assert sign_in(client, email, "wrong password").status_code == 403
        response = sign_in(client, email, PASSWORD)
        assert response.status_code == 429
        assert WINDOW_S - 60 < int(response.headers["retry-after"]) <= WINDOW_S
        assert "Too many attempts" in response.text
    assert sign_in(client, "admin@example.com", PASSWORD).status_code == 303


def test_throttle() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(PER_EMAIL * 2):  # what succeeds is not counted
        assert throttle.attempt("a", "192.0.2.1") == 0
        throttle.succeeded("a", "192.0.2.1")
    for number in range(PER_EMAIL):
        now[0] = number
        assert throttle.attempt("a", f"192.0.2.{number}") == 0
    now[0] = 100
    assert throttle.attempt("a", "198.51.100.1") == WINDOW_S - 100
    now[0] = WINDOW_S
    assert throttle.attempt("a", "198.51.100.1") == 0
    now[0] = 10 * WINDOW_S
    for number in range(PER_ADDRESS):  # one network of IPv6
        assert throttle.attempt(f"b{number}", f"2001:db8::{number:x}") == 0
    assert throttle.attempt("c", "2001:db8::ffff:1") == WINDOW_S
    assert throttle.attempt("c", "2001:db8:0:1::1") == 0


def test_forms_need_their_token(site: Site) -> None:
    client = site.visitor(site.user)
    token = site.csrf(client)
    assert client.post("/keys", data={"name": "a"}).status_code == 403
    assert client.post("/keys", data={"name": "a", "csrf": "é" + token}).status_code == 403
    assert client.post("/keys", data={"name": "a", "csrf": site.csrf(site.visitor(site.admin))}).status_code == 403
    for origin in ("cross-site", "same-site"):
        headers = {"sec-fetch-site": origin}
        assert client.post("/keys", data={"name": "a", "csrf": token}, headers=headers).status_code == 403
    assert site.store.keys.of_account(site.user.id) == []
    headers = {"sec-fetch-site": "same-origin"}
    assert client.post("/keys", data={"name": "a", "csrf": token}, headers=headers).status_code == 303
    stranger = site.visitor()
    fields = {"email": "user@example.com", "password": PASSWORD, "csrf": "x" * 43}
    assert stranger.post("/sign-in", data=fields).status_code == 403
    assert "rerankd-session" not in stranger.cookies
    assert stranger.post("/keys", data={"name": "a"}).headers["location"] == "/sign-in"


def test_forms_that_none_of_ours_sends(site: Site) -> None:
    client = site.visitor(site.user)
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/keys", json={"name": "a"}).status_code == 415
    assert client.post("/keys", content=b"name=" + b"a" * 65_536, headers=form).status_code == 413
    assert client.post("/keys", content=b"&".join([b"a=b"] * 300), headers=form).status_code == 400
    assert client.post("/keys", content=b"\xff\xfe=1", headers=form).status_code == 400


def test_keys(site: Site) -> None:
    client = site.visitor(site.user)
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    limited = {"model": "qwen3-rerank", "requests_per_minute": "5"}
    response = post(site, client, "/keys", name="<b>mine</b>", expires=str(tomorrow), **limited)
    assert response.headers["location"] == "/keys"
    found = re.search(r'<code id="secret"[^>]*>([^<]+)<', client.get("/keys").text)
    assert found
    (key,) = site.store.keys.of_account(site.user.id)
    caller = site.store.keys.find(found[1])
    assert caller and caller.key_id == key.id
    assert (key.models, key.limits) == (("qwen3-rerank",), CallLimits(requests_per_minute=5))
    assert key.expires == datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC) + timedelta(days=1)
    page = client.get("/keys").text
    assert "&lt;b&gt;mine&lt;/b&gt;" in page and "<b>mine" not in page and found[1] not in page and key.hint in page
    assert post(site, site.visitor(site.admin), f"/keys/{key.id}/revoke").status_code == 400  # another's
    assert site.store.keys.find(found[1])
    assert post(site, client, f"/keys/{key.id}/revoke").status_code == 303
    assert site.store.keys.find(found[1]) is None
    assert "revoked" in client.get("/keys").text


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": ""}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"name": "a", "expires": "2020-01-01"}, "expire"),
        ({"name": "a", "expires": "9999-12-31"}, "is not a date"),
        ({"name": "a", "expires": "soon"}, "is not a date"),
        ({"name": "a", "requests_per_minute": "0"}, "requests_per_minute"),
        ({"name": "a", "tokens_per_minute": "many"}, "Tokens per minute: “many” is not a whole number."),
    ],
)
def test_a_key_that_is_refused_keeps_what_was_typed(site: Site, fields: dict[str, str], problem: str) -> None:
    response = post(site, site.visitor(site.user), "/keys", **fields)
    assert response.status_code == 400
    alert = re.search(r'role="alert">([^<]+)<', response.text)
    assert alert and problem in alert[1]
    assert f'value="{fields["name"]}"' in response.text
    assert site.store.keys.of_account(site.user.id) == []


def test_usage(site: Site) -> None:
    client = site.visitor(site.user)
    assert "No calls were charged" in client.get("/usage").text
    site.store.ledger.add_credits(site.user.id, 5_000_000)
    charge(site, site.user, 900_000, "first")
    cost = charge(site, site.user, 300_000, "=2+3")
    assert cost == 20_000  # 100,000 free ones were left
    charge(site, site.admin, 123_456)
    page = client.get("/usage?days=7").text
    for shown in ("4.98 USD", "1,200,000", "0.02 USD", "first (rk-", "=2+3 (rk-", "qwen3-rerank", "600 requests/min"):
        assert shown in page, shown
    assert "123,456" not in page
    response = client.get("/usage.csv?days=7")
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(row["tokens"], row["free_tokens"], row["cost"]) for row in rows] == [
        ("300000", "100000", "0.02"),
        ("900000", "900000", "0.00"),
    ]
    assert rows[0]["key"].startswith("'=2+3")
    for days in ("0", "-1", "31", "x", "9" * 50):
        assert client.get(f"/usage?days={days}").status_code == 200


def test_password(site: Site) -> None:
    client, elsewhere = site.visitor(site.user), site.visitor(site.user)
    new = "another long password"
    for fields, problem in (
        ({"password": "wrong one", "new": new, "again": new}, "The current password is wrong."),
        ({"password": PASSWORD, "new": new, "again": new + "!"}, "not the same"),
        ({"password": PASSWORD, "new": "short", "again": "short"}, "from 8 to 1024 characters"),
    ):
        response = post(site, client, "/account/password", **fields)
        assert response.status_code == 400 and problem in response.text
    response = post(site, client, "/account/password", password=PASSWORD, new=new, again=new)
    assert response.headers["location"] == "/account?done"
    assert "The password is changed" in client.get("/account?done").text
    assert elsewhere.get("/account").status_code == 303
    assert site.store.accounts.check_password("user@example.com", new)


def test_invitation(site: Site) -> None:
    admin = site.visitor(site.admin)
    response = post(site, admin, "/admin/invites", email="new@example.com")
    found = re.search(r"http://testserver/sign-up#([\w-]{43})", response.text)
    assert found
    guest = site.visitor()
    guest.get("/sign-up")
    fields = {"csrf": guest.cookies["rerankd-form"], "new": PASSWORD, "again": PASSWORD, "email": "new@example.com"}
    for invite in ("", "x" * 43):
        refused = guest.post("/sign-up", data={**fields, "invite": invite})
        assert refused.status_code == 400 and "invitation is not valid" in refused.text
    assert guest.post("/sign-up", data={**fields, "invite": found[1]}).headers["location"] == "/keys"
    assert "new@example.com" in guest.get("/account").text
    account = site.store.accounts.by_email("new@example.com")
    assert account and account.role == "user"


def test_open_sign_up(make_site: Callable[..., Site]) -> None:
    site = make_site(sign_up="open")
    guest = site.visitor()
    guest.get("/sign-up")
    fields = {"csrf": guest.cookies["rerankd-form"], "new": PASSWORD, "again": PASSWORD, "role": "admin"}
    assert "has an account already" in guest.post("/sign-up", data={**fields, "email": "user@example.com"}).text
    assert guest.post("/sign-up", data={**fields, "email": "new@example.com"}).status_code == 303
    account = site.store.accounts.by_email("new@example.com")
    assert account and account.role == "user"
    statuses = [guest.post("/sign-up", data=fields).status_code for _ in range(PER_ADDRESS)]
    assert set(statuses) == {400, 429}
    other = site.visitor(host="198.51.100.1")
    other.get("/sign-up")
    assert other.post("/sign-up", data={**fields, "csrf": other.cookies["rerankd-form"]}).status_code == 400


def test_sign_up_is_off_unless_asked_for(make_site: Callable[..., Site]) -> None:
    client = make_site().visitor()
    assert client.get("/sign-up").status_code == 404
    assert "/sign-up" not in client.get("/sign-in").text


def test_administration(site: Site) -> None:
    admin = site.visitor(site.admin)
    one = f"/admin/accounts/{site.user.id}"
    response = post(
        site, admin, "/admin/accounts", email="new@example.com", name="New", password=PASSWORD, role="admin"
    )
    new = site.store.accounts.by_email("new@example.com")
    assert new and new.role == "admin" and response.headers["location"] == f"/admin/accounts/{new.id}?done=made"
    assert "The account is created." in admin.get(response.headers["location"]).text
    assert post(site, admin, "/admin/accounts", email="new@example.com").status_code == 400
    post(site, admin, f"{one}/credit", amount="25.50", note="March")
    for amount in ("", "x", "0", "1e400", "0.0000001", "nan"):
        assert post(site, admin, f"{one}/credit", amount=amount).status_code == 400
    post(site, admin, f"{one}/limits", requests_per_minute="10", tokens_per_minute="", concurrency="2")
    user = site.store.accounts.by_id(site.user.id)
    assert user and (user.balance, user.limits) == (25_500_000, CallLimits(10, None, 2))
    assert "25.50 USD" in admin.get("/admin").text
    post(site, admin, f"{one}/password", password="set by an admin")
    assert site.store.accounts.check_password("user@example.com", "set by an admin")
    post(site, admin, f"{one}/role", role="admin")
    post(site, admin, f"{one}/state", disabled="yes")
    user = site.store.accounts.by_id(site.user.id)
    assert user and user.disabled and user.role == "admin"
    assert "The account is disabled" in admin.get(f"{one}?done=disabled").text
    post(site, admin, f"{one}/state", disabled="no")
    key, secret = site.store.keys.create(site.user.id, "theirs")
    post(site, admin, f"{one}/keys/{key.id}/revoke")
    assert site.store.keys.find(secret) is None
    assert site.store.ledger.check() == []


def test_an_administrator_cannot_lock_the_door_from_outside(site: Site) -> None:
    admin = site.visitor(site.admin)
    for what, fields in (
        ("state", {"disabled": "yes"}),
        ("role", {"role": "user"}),
        ("password", {"password": "x" * 9}),
    ):
        response = post(site, admin, f"/admin/accounts/{site.admin.id}/{what}", **fields)
        assert response.status_code == 400 and "your own account" in response.text
    assert admin.get("/admin").status_code == 200


def test_the_servers_figures(site: Site) -> None:
    admin = site.visitor(site.admin)
    figures = admin.get("/admin/status").json()
    assert figures == {
        "Health": "ready: Qwen/Qwen3-Reranker-0.6B",
        "Running": "2",
        "Waiting": "1",
        "Requests in the last minute": "312",
        "Tokens per second": "48.2k",
        "Prefix cache hits": "97%",
        "Score cache hits": "–",
        "Up for": "1 d 2 h",
    }
    page = admin.get("/admin/server").text
    assert all(f'data-tile="{name}">{value}<' in page for name, value in figures.items())


def test_a_database_that_does_not_answer(site: Site) -> None:
    client = site.visitor(site.user)
    with site.store.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE sessions RENAME TO gone")
    response = client.get("/keys")
    assert response.status_code == 503 and response.headers["retry-after"]
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("name", ["gone-model", "another-model"])
def test_a_key_for_a_model_that_is_not_served_opens_no_other_one(site: Site, name: str) -> None:
    client = site.visitor(site.user)
    client.post("/keys", data={"csrf": site.csrf(client), "name": "confined", "model": name})
    page = client.get("/keys")
    assert page.status_code == 200 and f"not served now: {name}" in page.text
    assert site.store.keys.of_account(site.user.id)[0].models == (name,)
    unnamed = client.post("/keys", data={"csrf": site.csrf(client), "name": "of no name", "model": " "})
    assert unnamed.status_code == 400
