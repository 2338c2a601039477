"""The page of members: from the first invitation to the last farewell, and what must not work."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rerankd.accounts.accounts import Account
from rerankd.accounts.memberships import Right
from rerankd.mail import Mailer
from rerankd.web.context import WebContext
from rerankd.web.routes import web_routes
from support.site import PASSWORD, Site, loaded_models
from support.smtp import smtp_server

NEW = "a new password"


def add(site: Site, role: Right, name: str = "bob") -> Account:
    return site.store.members.add(site.user.id, f"{name}@example.com", "", PASSWORD, role)


def post(site: Site, client: TestClient, path: str, **fields: str) -> Any:
    return client.post(path, data={"csrf": site.csrf(client), **fields})


def invitation(site: Site, client: TestClient, **fields: str) -> str:
    """The token of a new invitation."""
    page = post(site, client, "/members/invite", **{"role": "member", **fields})
    assert page.status_code == 200
    found = re.search(r'id="secret"[^>]*>http://testserver/join#([\w-]{43})<', page.text)
    assert found, page.text
    return found[1]


def join(site: Site, token: str, email: str, host: str = "192.0.2.1") -> Any:
    guest = site.visitor(host=host)
    guest.get("/join")
    form = {"csrf": guest.cookies["rerankd-form"], "invite": token, "email": email, "new": NEW, "again": NEW}
    return guest.post("/join", data=form)


def text_of(response: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def test_from_an_invitation_to_a_member_who_makes_a_key(site: Site) -> None:
    owner = site.visitor(site.user)
    token = invitation(site, owner, email="Bob@example.com")
    assert token not in owner.get("/members").text, "the link is shown once"
    assert "bob@example.com" in owner.get("/members").text
    joined = join(site, token, "bob@example.com")
    assert (joined.status_code, joined.headers["location"]) == (303, "/keys")
    bob = site.store.accounts.check_password("bob@example.com", NEW)
    assert bob and (bob.team_id, bob.member_role) == (site.user.id, "member")
    member = site.visitor(bob)
    made = post(site, member, "/keys", name="of bob")
    assert made.status_code in (200, 303)
    assert "bob@example.com" in member.get("/keys").text and site.store.keys.of_account(bob.id) == []
    site.store.ledger.add_credits(site.user.id, 7_000_000)
    assert "7.00 USD" in member.get("/usage").text and "7.00 USD" in member.get("/statement").text
    account = text_of(member.get("/account"))
    assert "Member of user@example.com" in account and "Your role there member" in account
    log = text_of(owner.get("/members"))
    assert "bob@example.com key created of bob" in log and "user@example.com member invited" in log
    assert "What members did" not in member.get("/members").text


def test_roles_removal_and_leaving(site: Site) -> None:
    owner, bob = site.visitor(site.user), add(site, "viewer")
    client = site.visitor(bob)
    assert post(site, client, "/keys", name="k").status_code == 403
    changed = post(site, owner, "/members/role", member=f"{bob.id}", role="member")
    assert changed.headers["location"] == "/members?done=role"
    assert post(site, client, "/keys", name="k").status_code in (200, 303)
    assert "only owner" in text_of(post(site, owner, "/members/role", member=f"{site.user.id}", role="viewer"))
    assert "only owner" in text_of(post(site, owner, "/members/leave"))
    assert "This is you" in text_of(post(site, owner, "/members/remove", member=f"{site.user.id}"))
    assert "no such role" in text_of(post(site, owner, "/members/role", member=f"{bob.id}", role="admin"))
    secret = client.cookies["rerankd-session"]
    assert post(site, owner, "/members/remove", member=f"{bob.id}").status_code == 303
    # The session of a removed member is over at once, on the pages and for calls.
    assert client.get("/keys").headers["location"].startswith("/sign-in")
    assert site.store.session_caller(secret, "") is None
    assert "The member is removed" in owner.get("/members?done=removed").text
    eve = add(site, "viewer", "eve")
    leaving = site.visitor(eve)
    assert post(site, leaving, "/members/leave").headers["location"] == "/sign-in"
    assert [one.email for one in site.store.members.of(site.user.id)] == ["user@example.com"]


def test_an_owner_has_no_power_over_another_account(site: Site) -> None:
    bob, carl = add(site, "member"), site.store.accounts.create("carl@example.com", "", PASSWORD)
    eve = site.store.members.add(carl.id, "eve@example.com", "", PASSWORD, "owner")
    foreign = site.visitor(eve)
    site.store.invites.create_for_member(site.user.id, site.user.id, "viewer")
    [open_one] = site.store.invites.open_of(site.user.id)
    key, _ = site.store.keys.create(site.user.id, "a key")
    for path, fields in (
        ("/members/remove", {"member": f"{bob.id}"}),
        ("/members/remove", {"member": f"{site.user.id}"}),
        ("/members/role", {"member": f"{bob.id}", "role": "owner"}),
        ("/members/withdraw", {"invite": open_one.number}),
        (f"/keys/{key.id}/revoke", {}),
        ("/keys/budget", {"key": f"{key.id}", "budget": "5"}),
    ):
        assert post(site, foreign, path, **fields).status_code == 400, path
    page = foreign.get("/members").text + foreign.get("/keys").text
    assert "bob@example.com" not in page and "a key" not in re.findall(r'<th scope="row">([^<]*)', page)
    assert [one.email for one in site.store.members.of(site.user.id)] == ["user@example.com", "bob@example.com"]
    # A member of an administrator's account is no administrator.
    helper = site.store.members.add(site.admin.id, "helper@example.com", "", PASSWORD, "owner")
    assert site.visitor(helper).get("/admin").status_code == 403
    assert "/admin" not in site.visitor(helper).get("/keys").text


def test_forms_of_members_need_the_token_of_their_session(site: Site) -> None:
    bob, owner = add(site, "member"), site.visitor(site.user)
    theirs = site.csrf(site.visitor(bob))
    for path, fields in (
        ("/members/invite", {"role": "owner"}),
        ("/members/role", {"member": f"{bob.id}", "role": "owner"}),
        ("/members/remove", {"member": f"{bob.id}"}),
        ("/members/leave", {}),
    ):
        for token in ("", theirs, "x" * 43):
            assert owner.post(path, data={**fields, "csrf": token}).status_code == 403
        elsewhere = {"sec-fetch-site": "cross-site"}
        sent = owner.post(path, data={**fields, "csrf": site.csrf(owner)}, headers=elsewhere)
        assert sent.status_code == 403
    token = invitation(site, owner)
    assert site.visitor().post("/join", data={"invite": token, "email": "x@example.com"}).status_code == 403
    assert {one.role for one in site.store.members.of(site.user.id)} == {"owner", "member"}


def test_what_an_invitation_does_not_do(site: Site) -> None:
    owner = site.visitor(site.user)
    token = invitation(site, owner, email="bob@example.com")
    assert "for another e-mail address" in text_of(join(site, token, "eve@example.com"))
    assert join(site, token, "bob@example.com").status_code == 303
    assert "not valid, or has expired" in text_of(join(site, token, "bob2@example.com"))
    withdrawn = invitation(site, owner)
    [open_one] = site.store.invites.open_of(site.user.id)
    assert post(site, owner, "/members/withdraw", invite=open_one.number).status_code == 303
    assert "not valid, or has expired" in text_of(join(site, withdrawn, "eve@example.com"))
    # An administrator's invitation, which makes an account, makes none here.
    assert join(site, site.store.invites.create(site.admin.id), "eve@example.com").status_code == 400
    assert join(site, "guess", "eve@example.com").status_code == 400
    assert site.store.accounts.by_email("eve@example.com") is None


def test_guessing_is_slowed_down(site: Site) -> None:
    statuses = [join(site, f"guess {number}", "eve@example.com", "198.51.100.7").status_code for number in range(12)]
    assert statuses[:10] == [400] * 10 and statuses[-1] == 429


@pytest.mark.parametrize("sign_up", ["off", "open"])
def test_members_join_however_accounts_are_made(make_site: Callable[..., Site], sign_up: str) -> None:
    site = make_site(sign_up=sign_up)
    token = invitation(site, site.visitor(site.user))
    assert join(site, token, "bob@example.com").status_code == 303
    site.store.database.close()


def test_an_invitation_is_mailed_to_its_address_only(make_site: Callable[..., Site]) -> None:
    with smtp_server() as received:
        settings = {"smtp": received.url, "mail_from": "rerank@example.org", "public_url": "https://rerank.example"}
        site = make_site(sign_up="off", **settings)
        mailer = Mailer(received.url, "rerank@example.org")
        site = remade(site, mailer)
        owner = site.visitor(site.user)
        page = post(site, owner, "/members/invite", role="viewer", email="bob@example.com")
        assert "We also mailed it" in page.text
        assert "We also mailed it" not in post(site, owner, "/members/invite", role="viewer").text
        mailer.close()
        [(recipients, mail)] = received.mails
        text = mail.get_content()
        assert recipients == ["bob@example.com"] and "user@example.com invites you" in text
        found = re.search(r"https://rerank\.example/join#([\w-]{43})", text)
        assert found and join(site, found[1], "bob@example.com").status_code == 303
        site.store.database.close()


def remade(site: Site, mailer: Mailer) -> Site:
    """The same pages, with a server for mails."""
    app = FastAPI(openapi_url=None)
    app.include_router(web_routes(WebContext(site.settings, site.prices, loaded_models(), site.store, None, mailer)))
    return replace(site, app=app)


def test_a_viewer_spends_nothing_in_the_playground(site: Site) -> None:
    viewer, member = site.visitor(add(site, "viewer")), site.visitor(add(site, "member", "eve"))
    assert "Charged to user@example.com" in member.get("/").text
    page = viewer.get("/").text
    assert "Charged to" not in page and site.csrf(viewer) not in re.findall(r"data-state='([^']*)'", page)[0]


def test_an_administrator_sees_who_shares_an_account(site: Site) -> None:
    bob, admin = add(site, "viewer"), site.visitor(site.admin)
    page = admin.get(f"/admin/accounts/{site.user.id}").text
    assert f'/admin/accounts/{bob.id}">bob@example.com' in page
    of_bob = admin.get(f"/admin/accounts/{bob.id}")
    assert "This is the sign-in of the viewer of the account user@example.com" in text_of(of_bob)
    assert "Add credit" not in of_bob.text and "/limits" not in of_bob.text
    assert "viewer of an account" in admin.get("/admin?search=bob").text and "bob@" not in admin.get("/admin").text
