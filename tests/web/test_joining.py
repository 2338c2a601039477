"""Further accounts of a person on the pages: accepting an invitation, switching, and what must not work."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Page, expect

from rerankd.accounts.accounts import Account
from rerankd.accounts.deletion import delete_account
from support.looks import both_themes, check
from support.site import PASSWORD, Site


@pytest.fixture
def carl(site: Site) -> Account:
    """The owner of another account."""
    return site.store.accounts.create("carl@example.com", "Carl's shop", PASSWORD)


def invited(site: Site, role: Any = "member", email: str | None = None) -> str:
    """The token of an invitation to the user's account."""
    return site.store.invites.create_for_member(site.user.id, site.user.id, role, email)


def post(site: Site, client: TestClient, path: str, **fields: str) -> Any:
    return client.post(path, data={"csrf": site.csrf(client), **fields})


def keep(client: TestClient, token: str) -> Any:
    """Sends the form that asks for an invitation, or the button that leads to the sign-in."""
    client.get("/join")
    return client.post("/join/keep", data={"csrf": client.cookies["rerankd-form"], "invite": token})


def text_of(response: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def offered(response: Any) -> list[str]:
    """The accounts in the menu at the top of a page."""
    return re.findall(r'name="account" value="\d+"[^>]*><span>([^<]+)<', response.text)


def acting(response: Any) -> str:
    found = re.search(r'popovertarget="accounts" title="([^"]+)"', response.text)
    return found[1] if found else ""


def test_a_signed_in_person_accepts_an_invitation_and_switches(site: Site, carl: Account) -> None:
    site.store.ledger.add_credits(site.user.id, 7_000_000)
    client, token = site.visitor(carl), invited(site)
    assert offered(client.get("/keys")) == []
    asked = text_of(client.get("/join"))
    assert "You are signed in as carl@example.com" in asked and "New password" not in asked
    assert keep(client, token).headers["location"] == "/join?kept"
    shown = client.get("/join?kept")
    assert "user@example.com invites you to the account user@example.com , as member" in text_of(shown)
    assert site.store.members.accounts_of(carl.id) == site.store.members.accounts_of(carl.id)[:1], "not yet"
    accepted = post(site, client, "/join/accept", invite=token)
    assert (accepted.status_code, accepted.headers["location"]) == (303, "/members?done=joined")
    assert "rerankd-invite" not in client.cookies
    page = client.get("/members?done=joined")
    assert "You joined this account" in page.text and acting(page) == "user@example.com"
    assert offered(page) == ["carl@example.com", "user@example.com"]
    assert "7.00 USD" in client.get("/usage").text and "What members did" not in page.text
    assert post(site, client, "/keys", name="of carl").status_code == 303
    assert [key.made_by for key in site.store.keys.of_account(site.user.id)] == ["carl@example.com"]
    account = text_of(client.get("/account"))
    assert "Member of user@example.com Your role there member" in account and "Delete the account" not in account
    back = post(site, client, "/account/choose", account=f"{carl.id}", next="/usage")
    assert back.headers["location"] == "/usage"
    own = client.get("/usage")
    assert acting(own) == "carl@example.com" and "7.00 USD" not in own.text
    assert "Delete the account" in text_of(client.get("/account"))


def test_a_visitor_signs_in_on_the_way(site: Site, carl: Account) -> None:
    client, token = site.visitor(), invited(site, email="carl@example.com")
    assert 'formaction="/join/keep"' in client.get("/join").text
    led = keep(client, token)
    assert led.headers["location"] == "/sign-in?next=%2Fjoin%3Fkept" and token not in led.headers["location"]
    page = client.get(led.headers["location"]).text
    after = re.search(r'name="next" value="([^"]*)"', page)
    assert after
    form = {"csrf": client.cookies["rerankd-form"], "email": "carl@example.com", "password": PASSWORD}
    signed_in = client.post("/sign-in", data={**form, "next": html.unescape(after[1])})
    assert signed_in.headers["location"] == "/join?kept"
    assert f'name="invite" value="{token}"' in client.get("/join?kept").text
    assert post(site, client, "/join/accept", invite=token).status_code == 303
    assert [one.email for one in site.store.members.of(site.user.id)] == ["user@example.com", "carl@example.com"]


def test_a_form_of_the_account_before_is_refused(site: Site, carl: Account) -> None:
    site.store.members.add_existing(site.user.id, carl.id, "member")
    client = site.visitor(carl)
    before = site.csrf(client)
    assert post(site, client, "/account/choose", account=f"{site.user.id}").headers["location"] == "/"
    stale = client.post("/keys", data={"csrf": before, "name": "for which account?"})
    assert stale.status_code == 403 and "This form is too old" in stale.text
    assert site.store.keys.of_account(site.user.id) == site.store.keys.of_account(carl.id) == []


def test_what_an_invitation_does_not_do_for_a_signed_in_person(site: Site, carl: Account) -> None:
    client = site.visitor(carl)
    other = invited(site, email="eve@example.com")
    keep(client, other)
    page = client.get("/join?kept")
    assert "for another e-mail address" in text_of(page) and "/join/accept" in page.text
    assert 'name="invite"' not in page.text and "eve@example.com" not in page.text
    refused = post(site, client, "/join/accept", invite=other)
    assert refused.status_code == 400 and "for another e-mail address" in text_of(refused)
    withdrawn = invited(site)
    for one in site.store.invites.open_of(site.user.id):
        site.store.invites.withdraw(site.user.id, one.number, site.user.id)
    for invalid in (withdrawn, "guess", "", site.store.invites.create(site.admin.id)):
        refused = post(site, client, "/join/accept", invite=invalid)
        assert refused.status_code == 400 and "not valid, or has expired" in text_of(refused)
        keep(client, invalid)
        assert ("not valid" in text_of(client.get("/join?kept"))) == bool(invalid)
    token = invited(site)
    for csrf in ("", "x" * 43, site.csrf(site.visitor(site.user))):
        assert client.post("/join/accept", data={"csrf": csrf, "invite": token}).status_code == 403
        assert client.post("/account/choose", data={"csrf": csrf, "account": f"{carl.id}"}).status_code == 403
        assert site.visitor().post("/join/keep", data={"csrf": csrf, "invite": token}).status_code == 403
    forged = {"sec-fetch-site": "cross-site"}
    sent = {"csrf": site.csrf(client), "invite": token}
    assert client.post("/join/accept", data=sent, headers=forged).status_code == 403
    assert site.visitor().post("/join/accept", data=sent).headers["location"] == "/sign-in"
    assert [one.email for one in site.store.members.of(site.user.id)] == ["user@example.com"]
    joined = post(site, client, "/join/accept", invite=token)
    assert joined.status_code == 303
    again = post(site, client, "/join/accept", invite=invited(site))
    assert again.status_code == 400 and "member of this account already" in text_of(again)


def test_nobody_switches_to_an_account_of_others(site: Site, carl: Account) -> None:
    client = site.visitor(carl)
    for account in (f"{site.user.id}", f"{site.admin.id}", "99", "", "x", "-1", "9" * 18):
        refused = post(site, client, "/account/choose", account=account, next="/keys")
        assert refused.status_code == 400 and acting(refused) == ""
    site.store.members.add_existing(site.user.id, carl.id, "viewer")
    for path in ("//evil.example", "https://evil.example", "/join/../admin", ""):
        assert post(site, client, "/account/choose", account=f"{site.user.id}", next=path).headers["location"] == "/"
    assert post(site, client, "/keys", name="k").status_code == 403, "a viewer there, though an owner at home"
    assert client.get("/admin").status_code == 403
    assert post(site, client, "/account/delete", password=PASSWORD).status_code == 403
    site.store.members.set_role(site.user.id, carl.id, "owner")
    refused = post(site, client, "/account/delete", password=PASSWORD)
    assert refused.status_code == 400 and "not your own account" in text_of(refused)
    site.store.members.remove(site.user.id, carl.id)
    assert client.get("/keys").headers["location"].startswith("/sign-in"), "the session in that account is over"


def test_leaving_one_account_goes_on_in_another(site: Site, carl: Account) -> None:
    site.store.members.add_existing(site.user.id, carl.id, "viewer")
    client = site.visitor(carl)
    post(site, client, "/account/choose", account=f"{site.user.id}")
    page = client.get("/members")
    assert "You go on in your other accounts" in text_of(page)
    left = post(site, client, "/members/leave")
    assert left.headers["location"] == "/members?done=left"
    page = client.get("/members?done=left")
    assert "You left the account" in page.text and offered(page) == [] and "carl@example.com" in page.text
    own = site.visitor(carl)
    assert "only owner" in text_of(post(site, own, "/members/leave"))


def test_when_the_joined_account_is_deleted_the_person_stays(site: Site, carl: Account) -> None:
    site.store.members.add_existing(site.user.id, carl.id, "viewer")
    client = site.visitor(carl)
    page = site.visitor(site.admin).get(f"/admin/accounts/{carl.id}")
    assert "This person also acts in user@example.com (viewer)" in text_of(page).replace(" (", " (")
    post(site, client, "/account/choose", account=f"{site.user.id}")
    delete_account(site.store.database, site.user.id)
    assert client.get("/keys").headers["location"].startswith("/sign-in")
    again = site.visitor(carl).get("/keys")
    assert again.status_code == 200 and offered(again) == []


@both_themes
def test_joining_and_switching_in_a_browser(
    site: Site, carl: Account, serve: Callable[[Site], str], open_page: Callable[..., Page], theme: str
) -> None:
    url, token = serve(site), invited(site)
    asked: list[str] = []
    page = open_page(f"{url}/rates", color_scheme=theme)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/join#{token}")
    expect(page.locator("#invite")).to_have_value(token)
    check(page, "join-visitor")
    page.get_by_role("button", name="Sign in, and join with it").click()
    page.fill("#email", "carl@example.com")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/join?kept")
    expect(page.locator("main")).to_contain_text("user@example.com invites you")
    check(page, "join-accept")
    page.get_by_role("button", name="Join", exact=True).click()
    page.wait_for_url(f"{url}/members?done=joined")
    check(page, "members-joined")
    page.goto(f"{url}/usage")
    menu = page.get_by_role("button", name="Account: user@example.com")
    menu.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#accounts")).to_be_visible()
    check(page, "accounts-open")
    page.keyboard.press("Escape")
    expect(page.locator("#accounts")).to_be_hidden()
    menu.click()
    page.get_by_role("button", name="carl@example.com").click()
    expect(page.get_by_role("button", name="Account: carl@example.com")).to_be_visible()
    assert page.url == f"{url}/usage"
    assert not any(token in one for one in asked)
