"""The second factor on the pages: turned on and off by its owner, asked for at sign-in, removed by an administrator."""

from __future__ import annotations

import re
import time
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.accounts.second_factor import code_of
from rerankd.web.throttle import PER_EMAIL
from support.site import PASSWORD, Site


def post(site: Site, client: TestClient, path: str, **fields: str) -> Any:
    return client.post(path, data={"csrf": site.csrf(client), **fields})


def sign_in(client: TestClient, code: str = "", password: str = PASSWORD) -> Any:
    client.get("/sign-in")
    form = {"csrf": client.cookies["rerankd-form"], "email": "user@example.com", "password": password, "code": code}
    return client.post("/sign-in", data=form)


def code(site: Site, secret: str) -> str:
    """A code that was not used yet."""
    with site.store.database.transaction() as connection:
        connection.execute(update(schema.accounts).values(totp_step=0))
    return code_of(secret, int(time.time()) // 30)


def turned_on(site: Site, client: TestClient) -> str:
    """Returns the secret."""
    found = re.search(r'name="secret" value="([A-Z2-7]{32})"', client.get("/account").text)
    assert found
    path, secret = "/account/second-factor/on", found[1]
    refused = post(site, client, path, secret=secret, code="000000x", password=PASSWORD)
    assert refused.status_code == 400 and f'value="{secret}"' in refused.text, "the app has it already"
    wrong = post(site, client, path, secret=secret, code=code(site, secret), password="wrong one")
    assert wrong.status_code == 400 and "password is wrong" in wrong.text
    done = post(site, client, path, secret=secret, code=code(site, secret), password=PASSWORD)
    new = done.cookies["rerankd-session"]
    client.cookies.clear()
    client.cookies.set("rerankd-session", new)
    assert done.headers["location"] == "/account?done=on" and client.get("/account").status_code == 200
    return secret


def test_a_sign_in_needs_the_code(site: Site) -> None:
    owner, elsewhere = site.visitor(site.user), site.visitor(site.user)
    secret = turned_on(site, owner)
    assert elsewhere.get("/account").status_code == 303, "other sessions end"
    assert secret not in owner.get("/account").text
    without, wrong = sign_in(site.visitor()), sign_in(site.visitor(), password="wrong one")
    assert without.status_code == wrong.status_code == 403
    assert "The e-mail address, the password or the code is wrong." in without.text and PASSWORD not in without.text
    guest = site.visitor()
    fresh = code(site, secret)
    assert sign_in(guest, fresh).status_code == 303 and guest.get("/account").status_code == 200
    assert sign_in(site.visitor(), fresh).status_code == 403, "a code works once"
    assert sign_in(site.visitor(), code(site, secret), "wrong one").status_code == 403


def test_codes_are_not_guessed(site: Site) -> None:
    secret = turned_on(site, site.visitor(site.user))
    statuses = [sign_in(site.visitor(), f"{number:06}x").status_code for number in range(PER_EMAIL + 1)]
    assert statuses == [403] * PER_EMAIL + [429]
    assert sign_in(site.visitor(), code(site, secret)).status_code == 429


def test_turning_it_off_needs_the_password_and_a_code(site: Site) -> None:
    owner = site.visitor(site.user)
    secret = turned_on(site, owner)
    path = "/account/second-factor/off"
    assert post(site, owner, path, password=PASSWORD, code="1").status_code == 400
    assert post(site, owner, path, password="wrong one", code=code(site, secret)).status_code == 400
    assert sign_in(site.visitor()).status_code == 403
    assert (
        post(site, owner, path, password=PASSWORD, code=code(site, secret)).headers["location"] == "/account?done=off"
    )
    assert sign_in(site.visitor()).status_code == 303


def test_a_link_for_a_password_does_not_replace_it(site: Site) -> None:
    turned_on(site, site.visitor(site.user))
    site.store.links.set_password(site.store.links.for_password(site.user.id), "another long password")
    assert sign_in(site.visitor(), password="another long password").status_code == 403


def test_an_administrator_removes_it_when_the_device_is_lost(site: Site) -> None:
    turned_on(site, site.visitor(site.user))
    admin, path = site.visitor(site.admin), f"/admin/accounts/{site.user.id}"
    assert "Remove the second factor" in admin.get(path).text
    user = site.visitor(site.user)
    assert post(site, user, f"{path}/second-factor").status_code == 403
    assert post(site, admin, f"{path}/second-factor").headers["location"].endswith("done=factor")
    assert sign_in(site.visitor()).status_code == 303
    assert site.store.admin_log.find(1)[0].action == "second factor removed"
    assert post(site, admin, f"/admin/accounts/{site.admin.id}/second-factor").status_code == 400
