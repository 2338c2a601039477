"""The administrators' list of accounts, the log of what they did, and what a change says."""

from __future__ import annotations

import re

import pytest

from support.site import PASSWORD, Site


def emails(page: str) -> list[str]:
    return re.findall(r'<a href="/admin/accounts/\d+">([^<]+)@example\.com</a>', page)


@pytest.fixture
def crowd(site: Site) -> Site:
    for number in range(120):
        site.store.accounts.create(f"member{number:03}@example.com", f"Member <{number}>")
    return site


def test_thousands_of_accounts_are_searched_sorted_and_paged(crowd: Site) -> None:
    admin = crowd.visitor(crowd.admin)
    first = admin.get("/admin").text
    assert emails(first)[:3] == ["admin", "member000", "member001"] and len(emails(first)) == 50
    assert "122 accounts" in first and "Page 1 of 3" in first and "Previous" not in first
    second = re.search(r'href="(/admin\?[^"]*page=2)" rel="next"', first)
    assert second
    assert emails(admin.get(second[1].replace("&amp;", "&")).text)[0] == "member049"
    last = admin.get("/admin?page=99").text
    assert "Page 3 of 3" in last and emails(last)[-1] == "user"
    found = admin.get("/admin?search=MEMBER01").text
    assert len(emails(found)) == 10 and "10 accounts with “MEMBER01”" in found
    assert emails(admin.get("/admin?sort=-email").text)[0] == "user"
    assert 'aria-sort="descending"' in admin.get("/admin?sort=-credit").text
    nothing = admin.get("/admin", params={"search": '"><b>%', "page": "x", "sort": "password"}).text
    assert "No such account" in nothing and 'value="&#34;&gt;&lt;b&gt;%"' in nothing


def test_credit_says_its_note_and_the_new_balance(site: Site) -> None:
    admin, path = site.visitor(site.admin), f"/admin/accounts/{site.user.id}"
    site.store.ledger.add_credits(site.user.id, 5_000_000)
    form = {"csrf": site.csrf(admin), "amount": "25", "note": "March <3"}
    response = admin.post(f"{path}/credit", data=form)
    page = admin.get(response.headers["location"]).text
    assert "25.00 USD is added (“March &lt;3”). The new balance is 30.00 USD." in page
    entry = response.headers["location"].partition("entry=")[2]
    others = admin.get(f"/admin/accounts/{site.admin.id}?done=credit&entry={entry}").text
    assert "is added" not in others, "it is another account's"
    for odd in ("", "x", "9" * 18, "9" * 99, "-1"):
        assert "is added" not in admin.get(f"{path}?done=credit&entry={odd}").text


def test_the_log_shows_who_did_what(site: Site) -> None:
    admin, path = site.visitor(site.admin), f"/admin/accounts/{site.user.id}"
    for what, fields in (("credit", {"amount": "1", "note": "<i>"}), ("state", {"disabled": "yes"})):
        admin.post(f"{path}/{what}", data={"csrf": site.csrf(admin), **fields})
    admin.post("/admin/accounts", data={"csrf": site.csrf(admin), "email": "new@example.com", "password": PASSWORD})
    page = admin.get("/admin/log").text
    actions = re.findall(r'data-label="Action">([^<]+)<', page)
    assert actions[:3] == ["account created", "account disabled", "credit added"]
    assert page.count("admin@example.com") >= 3 and "&lt;i&gt;" in page and PASSWORD not in page
    assert re.findall(r'data-label="Action">([^<]+)<', admin.get(f"{path}/log").text)[:2] == actions[1:3]
    assert admin.get("/admin/log?before=2").status_code == admin.get("/admin/log?before=x").status_code == 200
    for closed in ("/admin/log", f"{path}/log", "/admin/usage", "/admin/server"):
        assert site.visitor(site.user).get(closed).status_code in (303, 403)


def test_what_owners_do_is_not_in_the_log(site: Site) -> None:
    before = len(site.store.admin_log.find(100))
    user = site.visitor(site.user)
    user.post("/keys", data={"csrf": site.csrf(user), "name": "own"})
    key = site.store.keys.of_account(site.user.id)[0]
    user.post(f"/keys/{key.id}/revoke", data={"csrf": site.csrf(user)})
    form = {"csrf": site.csrf(user), "password": PASSWORD, "new": "another long one", "again": "another long one"}
    assert user.post("/account/password", data=form).status_code == 303
    assert len(site.store.admin_log.find(100)) == before


def test_the_last_administrator_stays(site: Site) -> None:
    """Neither by another one's page, nor by an old session of one who is none any more."""
    other = site.store.accounts.create("other@example.com", "", PASSWORD, "admin")
    first, second = site.visitor(site.admin), site.visitor(other)
    tokens = site.csrf(first), site.csrf(second)
    form = {"csrf": tokens[0], "disabled": "yes"}
    assert first.post(f"/admin/accounts/{other.id}/state", data=form).status_code == 303
    for what, fields in (("state", {"disabled": "yes"}), ("role", {"role": "user"})):
        path = f"/admin/accounts/{site.admin.id}/{what}"
        assert second.post(path, data={"csrf": tokens[1], **fields}).headers["location"] == "/sign-in"
        refused = first.post(path, data={"csrf": tokens[0], **fields})
        assert refused.status_code == 400 and "your own account" in refused.text
    admin = site.store.accounts.by_id(site.admin.id)
    assert admin and admin.role == "admin" and not admin.disabled
