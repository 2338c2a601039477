"""A forgotten password and the confirmation of an address: links by mail, or from an administrator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.config import ServerSettings
from rerankd.errors import InvalidRequest
from rerankd.mail import Mailer
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes
from rerankd.web.throttle import PER_EMAIL
from support.site import PASSWORD, Site, loaded_models
from support.smtp import Received, smtp_server

NEW = "another long password"
ADDRESS = "https://rerank.example"


@pytest.fixture
def smtp() -> Iterator[Received]:
    with smtp_server() as received:
        yield received


@pytest.fixture
def mailing(make_site: Callable[..., Site], smtp: Received) -> Iterator[tuple[Site, Mailer]]:
    """A site with a mailer, where everybody may sign up."""
    site = make_site()
    settings = ServerSettings(accounts=True, sign_up="open", public_url=ADDRESS, config=site.settings.config)
    mailer = Mailer(smtp.url, "rerank@example.org")
    site.app = FastAPI(openapi_url=None)
    context = WebContext(settings, site.prices, loaded_models(), site.store, mailer=mailer)
    site.app.include_router(web_routes(context))
    yield site, mailer
    mailer.close()


def post(client: TestClient, path: str, page: str, **fields: str) -> Any:
    client.get(page)
    return client.post(path, data={"csrf": client.cookies["rerankd-form"], **fields})


def code_in(smtp: Received, path: str) -> str:
    """The code of the link in the last mail."""
    found = re.search(rf"{ADDRESS}/{path}#([\w-]{{43}})\s", smtp.mails[-1][1].get_content())
    assert found
    return found[1]


def test_a_forgotten_password(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    old = site.visitor(site.user)
    guest = site.visitor()
    sent = post(guest, "/forgot", "/forgot", email=" User@Example.com ")
    unknown = post(site.visitor(), "/forgot", "/forgot", email="nobody@example.com")
    assert sent.status_code == unknown.status_code == 200
    assert sent.text.replace("user@", "nobody@") == unknown.text, "it reveals who has an account"
    mailer.close()
    assert [recipients for recipients, _ in smtp.mails] == [["user@example.com"]]
    code = code_in(smtp, "reset")
    for fields, problem in (
        ({"code": "x" * 43, "new": NEW, "again": NEW}, "not valid"),
        ({"code": code, "new": NEW, "again": NEW + "!"}, "not the same"),
        ({"code": code, "new": "short", "again": "short"}, "from 8 to 1024"),
    ):
        refused = post(guest, "/reset", "/reset", **fields)
        assert refused.status_code == 400 and problem in refused.text
    done = post(guest, "/reset", "/reset", code=code, new=NEW, again=NEW)
    assert done.headers["location"] == "/sign-in?reset" and "rerankd-session" not in guest.cookies
    assert "The password is set" in guest.get("/sign-in?reset").text
    assert site.store.accounts.check_password("user@example.com", NEW)
    assert old.get("/account").status_code == 303, "signed out everywhere"
    assert post(guest, "/reset", "/reset", code=code, new=PASSWORD, again=PASSWORD).status_code == 400, "used once"


def test_the_link_is_the_settings_not_the_request_s(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    client = site.visitor()
    client.get("/forgot")
    form = {"csrf": client.cookies["rerankd-form"], "email": "user@example.com"}
    client.post("/forgot", data=form, headers={"host": "evil.example", "x-forwarded-host": "evil.example"})
    mailer.close()
    assert code_in(smtp, "reset") and "evil" not in smtp.mails[0][1].as_string()


@pytest.mark.parametrize("email", ["user@example.com\r\nBcc: eve@example.com", "a@b,c@d", "no address", "", "\0@b"])
def test_an_address_that_is_none_is_mailed_to_nobody(mailing: tuple[Site, Mailer], smtp: Received, email: str) -> None:
    site, mailer = mailing
    for path in ("/forgot", "/sign-up/mail"):
        assert post(site.visitor(), path, "/forgot", email=email).status_code in (200, 400)
    mailer.close()
    assert smtp.mails == []


def test_nobody_is_flooded_with_mail(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    statuses = [post(site.visitor(), "/forgot", "/forgot", email="user@example.com").status_code for _ in range(12)]
    assert statuses == [200] * PER_EMAIL + [429] * 2
    mailer.close()
    assert len(smtp.mails) == PER_EMAIL


def test_links_end(mailing: tuple[Site, Mailer]) -> None:
    store, user = mailing[0].store, mailing[0].user
    for end in ("time", "password", "disabled"):
        token = store.links.for_password(user.id)
        if end == "time":
            with store.database.transaction() as connection:
                connection.execute(update(schema.links).values(expires=datetime.now(UTC) - timedelta(seconds=1)))
        elif end == "password":
            store.accounts.set_password(user.id, "set by somebody")
        else:
            store.accounts.disable(user.id)
        with pytest.raises(InvalidRequest):
            store.links.set_password(token, NEW)
    with pytest.raises(InvalidRequest, match="disabled"):
        store.links.for_password(user.id)
    assert not store.accounts.check_password("user@example.com", NEW)


def test_an_account_needs_its_address(mailing: tuple[Site, Mailer], smtp: Received) -> None:
    site, mailer = mailing
    guest = site.visitor()
    fields = {"new": NEW, "again": NEW, "email": "new@example.com"}
    assert post(guest, "/sign-up", "/sign-up", **fields).status_code == 400, "without a link"
    assert post(guest, "/sign-up/mail", "/sign-up", email="new@example.com").status_code == 200
    assert post(guest, "/sign-up/mail", "/sign-up", email="user@example.com").status_code == 200
    mailer.close()
    assert [recipients for recipients, _ in smtp.mails] == [["new@example.com"], ["user@example.com"]]
    assert "You have one already" in smtp.mails.pop()[1].get_content()
    code = code_in(smtp, "sign-up")
    stolen = {**fields, "email": "admin2@example.com", "invite": code}
    assert post(guest, "/sign-up", "/sign-up", **stolen).status_code == 400, "it is for its address only"
    assert post(guest, "/reset", "/reset", code=code, new=NEW, again=NEW).status_code == 400, "it is no other link"
    assert post(guest, "/sign-up", "/sign-up", **fields, invite=code).headers["location"] == "/keys"
    account = site.store.accounts.by_email("new@example.com")
    assert account and account.role == "user"
    assert post(site.visitor(), "/sign-up", "/sign-up", **fields, invite=code).status_code == 400
    other = site.store.links.for_password(site.admin.id)
    assert post(site.visitor(), "/sign-up", "/sign-up", **fields, invite=other).status_code == 400


def test_without_a_mailer_an_administrator_gives_a_link(site: Site) -> None:
    guest, admin = site.visitor(), site.visitor(site.admin)
    assert "This server sends no mail" in guest.get("/forgot").text
    assert guest.post("/forgot").status_code == 405
    path = f"/admin/accounts/{site.user.id}/link"
    page = admin.post(path, data={"csrf": site.csrf(admin)})
    found = re.search(r"http://testserver/reset#([\w-]{43})", page.text)
    assert page.status_code == 200 and found
    assert post(guest, "/reset", "/reset", code=found[1], new=NEW, again=NEW).status_code == 303
    assert site.store.accounts.check_password("user@example.com", NEW)
    assert site.store.admin_log.find(1)[0].action == "password link created"
    own = admin.post(f"/admin/accounts/{site.admin.id}/link", data={"csrf": site.csrf(admin)})
    assert own.status_code == 400
    user = site.visitor(site.user)
    assert user.post(path, data={"csrf": site.csrf(user)}).status_code == 403
