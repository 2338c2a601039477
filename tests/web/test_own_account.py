"""One's own account on the pages: recovery codes, another e-mail address, deletion, and keys that are shown once."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.accounts.second_factor import code_of, new_secret
from rerankd.config import ServerSettings
from rerankd.mail import Mailer
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes
from rerankd.web.throttle import PER_EMAIL
from support.site import PASSWORD, Site, loaded_models
from support.smtp import Received, smtp_server

ADDRESS = "https://rerank.example"
CODE = re.compile(r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}")


def post(site: Site, client: TestClient, path: str, **fields: str) -> Any:
    return client.post(path, data={"csrf": site.csrf(client), **fields})


def sign_in(site: Site, code: str = "", email: str = "user@example.com") -> int:
    """The status of a sign-in from a fresh browser."""
    client = site.visitor()
    client.get("/sign-in")
    form = {"csrf": client.cookies["rerankd-form"], "email": email, "password": PASSWORD, "code": code}
    return int(client.post("/sign-in", data=form).status_code)


def fresh_code(site: Site, secret: str) -> str:
    """A code that was not used yet."""
    with site.store.database.transaction() as connection:
        connection.execute(update(schema.accounts).values(totp_step=0))
    return code_of(secret, int(time.time()) // 30)


def with_factor(site: Site, client: TestClient) -> tuple[str, list[str]]:
    """Turns the second factor on: (the secret, the recovery codes)."""
    secret = new_secret()
    code = code_of(secret, int(time.time()) // 30)
    done = post(site, client, "/account/second-factor/on", secret=secret, code=code, password=PASSWORD)
    assert done.headers["location"] == "/account?done=on" and CODE.search(done.text) is None
    client.cookies.clear()
    for name in ("rerankd-session", "rerankd-shown"):
        client.cookies.set(name, done.cookies[name], domain="testserver.local")
    codes = CODE.findall(client.get("/account?done=on").text)
    assert len(set(codes)) == 10
    return secret, codes


def test_recovery_codes_are_shown_once_and_work_once(site: Site) -> None:
    client = site.visitor(site.user)
    secret, codes = with_factor(site, client)
    page = client.get("/account").text
    assert CODE.search(page) is None and "10 of 10 recovery codes are left" in page
    assert sign_in(site, codes[0]) == 303 and sign_in(site, codes[0]) == 403
    assert sign_in(site, codes[1].lower().replace("-", " ")) == 303, "as people type"
    wrong = codes[2][:-1] + ("A" if codes[2][-1] != "A" else "B")
    assert sign_in(site, wrong) == 403 and sign_in(site, "-".join(codes)[:60]) == 403
    assert "8 of 10 recovery codes are left" in client.get("/account").text
    # Another account's do not work
    other = site.store.accounts.create("other@example.com", "", PASSWORD)
    with_factor(site, site.visitor(other))
    assert sign_in(site, codes[3], "other@example.com") == 403
    # New ones end the old ones, and need what turning it off needs
    path = "/account/second-factor/codes"
    assert post(site, client, path, password="a guess", code=fresh_code(site, secret)).status_code == 400
    assert post(site, client, path, password=PASSWORD, code="1").status_code == 400
    assert post(site, client, path, password=PASSWORD, code=codes[4]).headers["location"] == "/account?done=codes"
    new = CODE.findall(client.get("/account?done=codes").text)
    assert len(new) == 10 and not set(new) & set(codes)
    assert sign_in(site, codes[5]) == 403 and sign_in(site, new[0]) == 303
    # A code turns it off, too: the device is lost
    off = post(site, client, "/account/second-factor/off", password=PASSWORD, code=new[1])
    assert off.headers["location"] == "/account?done=off" and sign_in(site) == 303
    assert post(site, client, path, password=PASSWORD, code="").status_code == 400, "there is no second factor"


def test_recovery_codes_are_not_guessed_nor_stored(site: Site) -> None:
    _, codes = with_factor(site, site.visitor(site.user))
    with site.store.database.read() as connection:
        rows = repr(connection.execute(schema.recovery_codes.select()).all())
    assert not any(code in rows or code.replace("-", "") in rows for code in codes)
    statuses = [sign_in(site, f"AAAA-AAAA-AAAA-AA{number:02}".replace("0", "B")) for number in range(PER_EMAIL + 1)]
    assert statuses == [403] * PER_EMAIL + [429]


def test_the_secret_is_also_a_picture(site: Site) -> None:
    page = site.visitor(site.user).get("/account").text
    found = re.search(r'<svg role="img" aria-label="[^"]+"[^>]*viewBox="0 0 (\d+) \d+"[^>]*>(.*?)</svg>', page, re.S)
    assert found and int(found[1]) > 30 and "<script" not in found[2] and "style=" not in found[0]
    assert "otpauth://totp/rerankd%3Auser%40example.com?secret=" in html.unescape(page)


# Another e-mail address.


@pytest.fixture
def smtp() -> Iterator[Received]:
    with smtp_server() as received:
        yield received


@pytest.fixture
def mailing(site: Site, smtp: Received) -> Iterator[tuple[Site, Mailer]]:
    """A site with a mailer."""
    mailer = Mailer(smtp.url, "rerank@example.org")
    settings = ServerSettings(accounts=True, public_url=ADDRESS, config=site.settings.config)
    site.app = FastAPI(openapi_url=None)
    context = WebContext(settings, site.prices, loaded_models(), site.store, mailer=mailer)
    site.app.include_router(web_routes(context))
    yield site, mailer
    mailer.close()


def code_in(smtp: Received) -> str:
    """The code of the link in the last mail."""
    found = re.search(rf"{ADDRESS}/account/email#([\w-]{{43}})\s", smtp.mails[-1][1].get_content())
    assert found
    return found[1]


def test_a_new_address_is_confirmed_by_mail(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    client = site.visitor(site.user)
    ask = "/account/email/ask"
    assert post(site, client, ask, email="new@example.com", password="a guess").status_code == 400
    assert post(site, client, ask, email="no address", password=PASSWORD).status_code == 400
    sent = post(site, client, ask, email=" New@Example.com", password=PASSWORD)
    taken = post(site, client, ask, email="admin@example.com", password=PASSWORD)
    assert sent.status_code == taken.status_code == 200
    assert sent.text.replace("new@", "admin@") == taken.text, "it reveals who has an account"
    mailer.close()
    assert [recipients for recipients, _ in smtp.mails] == [["new@example.com"], ["admin@example.com"]]
    assert "It has an account already" in smtp.mails.pop()[1].get_content()
    code = code_in(smtp)
    # The link needs the account's own session, and does nothing else
    assert site.visitor().get("/account/email").headers["location"] == "/sign-in?next=%2Faccount%2Femail"
    guest = site.visitor()
    guest.get("/reset")
    form = {"csrf": guest.cookies["rerankd-form"], "code": code, "new": "a new password", "again": "a new password"}
    assert guest.post("/reset", data=form).status_code == 400
    stranger = site.visitor(site.admin)
    assert post(site, stranger, "/account/email", code=code).status_code == 400
    assert site.store.accounts.by_email("user@example.com"), "nothing changed"
    done = post(site, client, "/account/email", code=code)
    assert done.headers["location"] == "/account?done=email"
    account = site.store.accounts.by_email("new@example.com")
    assert account and account.id == site.user.id and client.get("/account").status_code == 200
    assert post(site, client, "/account/email", code=code).status_code == 400, "used once"
    mailer.close()
    assert smtp.mails[-1][0] == ["user@example.com"] and "now new@example.com" in smtp.mails[-1][1].get_content()
    assert sign_in(site) == 403 and sign_in(site, email="new@example.com") == 303


def test_nobody_is_flooded_with_confirmations(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    client = site.visitor(site.user)
    asked = [post(site, client, "/account/email/ask", email="a@example.com", password=PASSWORD) for _ in range(12)]
    assert [one.status_code for one in asked] == [200] * PER_EMAIL + [400] * 2
    mailer.close()
    assert len(smtp.mails) == PER_EMAIL


def test_links_for_a_password_end_with_the_address(mailing: tuple[Site, Mailer]) -> None:
    """They were mailed to the old one."""
    site, _ = mailing
    reset = site.store.links.for_password(site.user.id, "owner")
    site.store.links.change_email(site.store.links.for_email(site.user.id, "new@example.com"), site.user.id)
    guest = site.visitor()
    guest.get("/reset")
    form = {"csrf": guest.cookies["rerankd-form"], "code": reset, "new": "a new password", "again": "a new password"}
    assert guest.post("/reset", data=form).status_code == 400


def test_without_mail_an_administrator_makes_the_link(site: Site) -> None:
    client, admin = site.visitor(site.user), site.visitor(site.admin)
    assert "An administrator can give you a link" in client.get("/account").text
    assert post(site, client, "/account/email/ask", email="new@example.com", password=PASSWORD).status_code == 404
    path = f"/admin/accounts/{site.user.id}/email-link"
    assert post(site, client, path, email="new@example.com").status_code == 403
    for refused in ("admin@example.com", "no address"):
        assert post(site, admin, path, email=refused).status_code == 400
    page = post(site, admin, path, email="new@example.com")
    found = re.search(r"http://testserver/account/email#([\w-]{43})", page.text)
    assert page.status_code == 200 and found and "changes the address to new@example.com" in page.text
    assert site.store.accounts.by_email("user@example.com"), "not yet"
    assert post(site, client, "/account/email", code=found[1]).status_code == 303
    assert site.store.accounts.by_email("new@example.com")
    assert site.store.admin_log.find(1)[0].action == "e-mail link created"
    # Not to an address that got an account meanwhile
    late = site.store.links.for_email(site.user.id, "late@example.com")
    site.store.accounts.create("late@example.com")
    assert post(site, client, "/account/email", code=late).status_code == 400


# Deletion.


def test_an_owner_deletes_the_account(site: Site) -> None:
    client = site.visitor(site.user)
    _, secret = site.store.keys.create(site.user.id, "a key")
    factor, codes = with_factor(site, client)
    for fields in ({"password": "a guess", "code": codes[0]}, {"password": PASSWORD, "code": "1"}):
        assert post(site, client, "/account/delete", **fields).status_code == 400
    done = post(site, client, "/account/delete", password=PASSWORD, code=fresh_code(site, factor))
    assert done.headers["location"] == "/sign-in?deleted" and 'rerankd-session=""' in done.headers["set-cookie"]
    assert "The account is deleted." in client.get("/sign-in?deleted").text
    assert sign_in(site) == 403 and site.store.keys.find(secret) is None
    assert site.store.accounts.by_email("user@example.com") is None
    refused = post(site, site.visitor(site.admin), "/account/delete", password=PASSWORD)
    assert refused.status_code == 400 and "only administrator" in refused.text


def test_an_administrator_deletes_an_account(site: Site) -> None:
    admin, path = site.visitor(site.admin), f"/admin/accounts/{site.user.id}"
    signed_in = site.visitor(site.user)
    assert post(site, signed_in, f"{path}/delete").status_code == 403
    assert post(site, admin, f"/admin/accounts/{site.admin.id}/delete").status_code == 400
    done = post(site, admin, f"{path}/delete")
    assert done.headers["location"] == f"{path}?done=deleted"
    page = admin.get(done.headers["location"]).text
    assert "user@example.com" not in page and "This account was deleted" in page and "Enable" not in page
    assert signed_in.get("/account").status_code == 303
    assert post(site, admin, f"{path}/state", disabled="no").status_code == 400
    assert "deleted" in admin.get("/admin").text


# Keys.


def test_reloading_after_a_key_is_made_makes_no_second_one(
    serve_site: tuple[Site, str], open_page: Callable[..., Page]
) -> None:
    site, url = serve_site
    page = open_page(f"{url}/sign-in?next=/keys")
    page.fill("#email", "user@example.com")
    page.fill("#password", "a guess")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator("#password")).to_be_focused()  # where one types next
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/keys")
    page.fill("#name", "mine")
    page.click("text=Create the key")
    secret = page.locator("#secret").text_content()
    assert secret and site.store.keys.find(secret)
    page.reload()
    expect(page.get_by_role("heading", name="Create a key")).to_be_visible()
    expect(page.locator("#secret")).to_have_count(0)
    assert len(site.store.keys.of_account(site.user.id)) == 1
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Revoke mine").click()
    expect(page.get_by_role("status")).to_have_text("The key is revoked.")


def test_a_secret_is_shown_to_its_own_account_only(site: Site) -> None:
    client = site.visitor(site.user)
    made = post(site, client, "/keys", name="mine")
    assert made.headers["location"] == "/keys" and "rk-" not in made.text
    cookie = next(one for one in made.headers.get_list("set-cookie") if one.startswith("rerankd-shown="))
    assert "HttpOnly" in cookie and "Max-Age=60" in cookie
    other = site.visitor(site.admin)
    other.cookies.set("rerankd-shown", client.cookies["rerankd-shown"])
    assert 'id="secret"' not in other.get("/keys").text
    assert client.get("/account").status_code == 200, "another page neither shows nor forgets it"
    assert 'id="secret"' in client.get("/keys").text and 'id="secret"' not in client.get("/keys").text
    for planted in ("/keys <script>", "/keys rk-nonsense", "nonsense", "/keys"):
        client.cookies.set("rerankd-shown", planted.replace(" ", "%20"))
        assert 'id="secret"' not in client.get("/keys").text
