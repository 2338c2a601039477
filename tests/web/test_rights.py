"""Every route for people who are signed in, by the role that it needs. A new route fails until it is listed here."""

from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from rerankd.accounts.accounts import Account
from support.routes import routes_of
from support.site import PASSWORD, Site

PUBLIC = {
    *(("GET", path) for path in ("/", "/rates", "/docs", "/sample", "/forgot", "/favicon.ico", "/robots.txt")),
    *(("GET", path) for path in ("/static/{name}", "/static/{tag}/{name}")),
    *((method, path) for method in ("GET", "POST") for path in ("/sign-in", "/sign-up", "/join", "/reset")),
    ("POST", "/join/keep"),
}
"""For visitors without a session."""

ONE = "/admin/accounts/{account_id:row}"
NEEDS = {
    "viewer": {
        *(
            ("GET", path)
            for path in ("/account", "/members", "/keys", "/usage", "/usage.csv", "/usage-by-day.csv", "/statement")
        ),
        *(("GET", path) for path in ("/statement.csv", "/calls", "/calls.csv")),
        *(
            ("POST", f"/account/{what}")
            for what in ("password", "second-factor/on", "second-factor/off", "unlink", "email")
        ),
        *(("POST", path) for path in ("/account/second-factor/codes",)),
        ("GET", "/account/email"),
        *(("POST", path) for path in ("/join/accept", "/account/choose")),
        *(("POST", path) for path in ("/sign-out", "/members/leave")),
    },
    "member": {("POST", path) for path in ("/keys", "/keys/budget", "/keys/{key_id:row}/revoke")},
    "owner": {
        *(("POST", f"/members/{what}") for what in ("invite", "withdraw", "role", "remove")),
        ("POST", "/account/delete"),
    },
    "admin": {
        *(
            ("GET", f"/admin{what}")
            for what in (
                "",
                "/usage",
                "/usage.csv",
                "/usage-by-day.csv",
                "/calls",
                "/calls.csv",
                "/server",
                "/status",
                "/log",
            )
        ),
        *(
            ("GET", f"{ONE}{what}")
            for what in ("", "/statement", "/statement.csv", "/calls", "/calls.csv", "/log", "/usage-by-day.csv")
        ),
        *(("POST", f"/admin/{what}") for what in ("accounts", "invites", "upstreams/probe")),
        *(("POST", f"{ONE}/{what}") for what in ("credit", "limits", "link", "password", "role", "second-factor")),
        *(("POST", f"{ONE}/{what}") for what in ("state", "budget", "keys/{key_id:row}/revoke")),
        *(("POST", f"{ONE}/{what}") for what in ("email-link", "unlink", "delete")),
    },
}
MAY = {
    "nobody": set[str](),
    "viewer": {"viewer"},
    "member": {"viewer", "member"},
    "owner": {"viewer", "member", "owner"},
    "admin": {"viewer", "member", "owner", "admin"},
}
"""Which of these each person may use. The administrator is the owner of another account."""


@pytest.fixture
def people(site: Site) -> dict[str, Account | None]:
    """One of each role: those of the first account, an administrator, and nobody."""
    add, team = site.store.members.add, site.user.id
    roles = {role: add(team, f"{role}@example.com", "", PASSWORD, role) for role in ("viewer", "member", "owner")}
    return {"nobody": None, **roles, "admin": site.admin}


def test_every_route_needs_a_role(site: Site) -> None:
    decided = [PUBLIC, *NEEDS.values()]
    assert set(routes_of(site.app.routes)) == set().union(*decided)
    assert sum(map(len, decided)) == len(set().union(*decided)), "a route stands in two places"


@pytest.mark.parametrize("person", MAY)
def test_who_may_use_which_route(site: Site, people: dict[str, Account | None], person: str) -> None:
    key, _ = site.store.keys.create(site.user.id, "a key")
    client = site.visitor(people[person])
    for need, routes in NEEDS.items():
        for method, template in sorted(routes):
            path = template.replace("{account_id:row}", f"{site.user.id}").replace("{key_id:row}", f"{key.id}")
            assert outcome(client, method, path) == expected(person, need), (person, method, path)


def expected(person: str, need: str) -> str:
    if person == "nobody":
        return "must sign in"
    return "may" if need in MAY[person] else "may not"


def outcome(client: TestClient, method: str, path: str) -> str:
    """Forms are sent without their token, so that nothing changes: rights are checked first."""
    response = client.get(path) if method == "GET" else client.post(path, data={"csrf": ""})
    if response.status_code == 303:
        assert response.headers["location"].startswith("/sign-in")
        return "must sign in"
    if response.status_code == 403 and re.search(r"only [a-z ]+ may do this|is for administrators", response.text):
        return "may not"
    assert response.status_code == (200 if method == "GET" else 403), (path, response.status_code)
    assert method == "GET" or "This form is too old" in response.text
    return "may"


def test_pages_show_no_form_that_the_role_may_not_send(site: Site, people: dict[str, Account | None]) -> None:
    site.store.keys.create(site.user.id, "a key")
    form = re.compile(r'<form[^>]*method="post" action="([^"]+)"')
    pages = ("/keys", "/members", "/account")
    shown = {
        person: {action for page in pages for action in form.findall(site.visitor(people[person]).get(page).text)}
        for person in ("viewer", "member", "owner")
    }
    own = {"/sign-out", "/account/password", "/account/second-factor/on", "/members/leave"}
    assert shown["viewer"] == own
    made = {re.sub(r"\d+", "N", action) for action in shown["member"]}
    assert made == own | {
        "/keys",
        "/keys/budget",
        "/keys/N/revoke",
    }
    assert shown["owner"] > shown["member"] and "/members/invite" in shown["owner"]
