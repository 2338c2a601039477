"""What a page must not do: keep a session that was planted, obey a form from elsewhere, run what somebody typed.

Who may see which page, and the headers of all pages, are in tests/server/test_security.py.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from rerankd.accounts import schema
from rerankd.accounts.accounts import Account
from rerankd.accounts.decision import CallCost
from rerankd.accounts.second_factor import code_of
from rerankd.accounts.sessions import Session, Sessions
from rerankd.accounts.store import Store
from rerankd.config import ServerSettings
from support.site import INFO, PASSWORD, Site, loaded_models, new_store, site_of

FORM = {"content-type": "application/x-www-form-urlencoded"}


def state(store: Store) -> list[Any]:
    """What no refused form may change."""
    names = ("accounts", "keys", "entries", "invites", "links", "sessions", "identities", "recovery_codes")
    tables = [schema.metadata.tables[name] for name in names]
    with store.database.read() as connection:
        return [connection.execute(select(table).order_by(*table.primary_key)).all() for table in tables]


def forms_of(site: Site, client: TestClient) -> dict[str, dict[str, str]]:
    """Every form that changes something, with its fields as the page of the visitor has them: {action: fields}."""
    found: dict[str, dict[str, str]] = {}
    for path in ("/account", "/keys", "/admin", f"/admin/accounts/{site.user.id}", "/sign-in", "/sign-up"):
        for action, content in re.findall(
            r'<form[^>]*method="post" action="([^"]+)"[^>]*>(.*?)</form>', client.get(path).text, re.S
        ):
            names = re.findall(r'name="([^"]+)"(?:[^>]*? value="([^"]*)")?', content)
            found[action] = {name: html.unescape(value) for name, value in names}
    return found


TYPED = {
    "name": "typed",
    "email": "typed@example.com",
    "amount": "5",
    "note": "typed",
    "new": "a new password",
    "again": "a new password",
    "requests_per_minute": "7",
    "role": "admin",
    "disabled": "yes",
    "key": "1",
    "budget": "5",
}
"""With these, each form would do something."""


@pytest.fixture
def furnished(site: Site) -> Site:
    """With a key and an invitation."""
    site.store.keys.create(site.user.id, "a key")
    site.store.invites.create(site.admin.id)
    return site


# Forms from elsewhere.


def test_every_form_needs_the_token_of_its_own_session(furnished: Site) -> None:
    site = furnished
    admin, stranger = site.visitor(site.admin), site.visitor()
    forms = forms_of(site, admin)
    stranger.get("/sign-in")
    anonymous = {action: fields for action, fields in forms_of(site, stranger).items() if action.startswith("/sign-")}
    assert len(forms) >= 9 and set(anonymous) == {"/sign-in", "/sign-up"}
    other = site.csrf(site.visitor(site.user))
    before = state(site.store)
    for client, all_of_one in ((admin, forms), (stranger, anonymous)):
        for action, fields in all_of_one.items():
            typed = {**fields, **TYPED, "password": PASSWORD}
            assert len(fields["csrf"]) == 43, action
            for token in ("", other, fields["csrf"][:-1], stranger.cookies["rerankd-form"] + "a", None):
                form = {name: value for name, value in {**typed, "csrf": token}.items() if value is not None}
                response = client.post(action, data=form)
                assert response.status_code == 403 and "set-cookie" not in response.headers, action
            for origin in ("cross-site", "same-site", "nonsense"):
                assert client.post(action, data=typed, headers={"sec-fetch-site": origin}).status_code == 403
            # Types that pages of other sites can send without asking, or that no form of ours has
            for media in ("text/plain", "application/json", "multipart/form-data; boundary=x", ""):
                content = "&".join(f"{name}={value}" for name, value in typed.items())
                response = client.post(action, content=content, headers={"content-type": media})
                assert response.status_code == 415, action
            assert client.post(f"{action}?csrf={fields['csrf']}", headers=FORM).status_code == 403
            assert client.get(f"{action}?csrf={fields['csrf']}").status_code in (200, 405)
    assert state(site.store) == before


def test_the_same_forms_work_from_their_own_page(furnished: Site) -> None:
    """Else the test above shows nothing."""
    site = furnished
    forms = forms_of(site, site.visitor(site.admin))
    del forms["/sign-up"]  # its token is in another cookie
    del forms["/account/delete"]  # tests/web/test_own_account.py: an administrator stays
    for action, fields in sorted(forms.items(), key=lambda form: form[0].endswith("/delete")):
        admin = site.visitor(site.admin)
        password = PASSWORD if action == "/account/password" else "a new password"
        typed = {**fields, **TYPED, "email": email_of(action), "password": password, "csrf": site.csrf(admin)}
        if "secret" in fields:
            typed["code"] = code_of(fields["secret"], int(time.time()) // 30)
        before = state(site.store)
        response = admin.post(action, data=typed, headers={"sec-fetch-site": "same-origin"})
        assert response.status_code in (200, 303) and state(site.store) != before, action


class Unequal(str):
    """A text whose comparison character by character is a mistake: it tells by its time how much of it was right."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared by ==")

    __ne__ = __eq__


def test_tokens_are_compared_in_constant_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    find = Sessions.find

    def guarded(sessions: Sessions, token: str) -> Session | None:
        found = find(sessions, token)
        return found and replace(found, csrf=Unequal(found.csrf))

    monkeypatch.setattr(Sessions, "find", guarded)
    client = site.visitor(site.user)
    token = str(site.csrf(client))
    for sent, status in ((token, 303), (token[:-1], 403), ("é", 403)):
        assert client.post("/keys", data={"csrf": sent, "name": "a"}).status_code == status


# Sessions.


def cookie_of(response: Any) -> str:
    """The session that it opens."""
    found = re.search(r"rerankd-session=([\w-]{43});", response.headers["set-cookie"])
    assert found
    return found[1]


def test_a_planted_session_is_not_the_one_after_signing_in(site: Site) -> None:
    store = site.store
    attackers = store.sessions.open(site.user.id)  # whose name the visitor would work under
    for planted in ("a" * 43, attackers):
        visitor = site.visitor()
        visitor.get("/sign-in")
        token = visitor.cookies["rerankd-form"]
        visitor.cookies.set("rerankd-session", planted)
        form = {"csrf": token, "email": "admin@example.com", "password": PASSWORD}
        response = visitor.post("/sign-in", data=form)
        given = cookie_of(response)
        assert given != planted
        session = store.sessions.find(given)
        assert session and session.account.id == site.admin.id and session.csrf != token
        assert store.sessions.find(planted) is None


def test_a_new_password_ends_every_other_session(site: Site) -> None:
    here, there = site.visitor(site.user), site.visitor(site.user)
    before = here.cookies["rerankd-session"]
    form = {"csrf": site.csrf(here), "password": PASSWORD, "new": "a new password", "again": "a new password"}
    response = here.post("/account/password", data=form)
    assert response.status_code == 303 and before not in response.headers["set-cookie"]
    replayed = site.visitor()
    replayed.cookies.set("rerankd-session", before)
    here.cookies.clear()
    here.cookies.update({"rerankd-session": cookie_of(response)})
    assert [client.get("/account").status_code for client in (here, there, replayed)] == [200, 303, 303]
    # So does one that an administrator sets, and an account that is disabled
    admin = site.visitor(site.admin)
    for what, fields in (("password", {"password": "set by an admin"}), ("state", {"disabled": "yes"})):
        signed_in = site.visitor(site.user)
        assert signed_in.get("/account").status_code == 200
        form = {"csrf": site.csrf(admin), **fields}
        assert admin.post(f"/admin/accounts/{site.user.id}/{what}", data=form).status_code == 303
        assert signed_in.get("/account").status_code == 303


def test_a_session_that_was_ended_cannot_be_replayed(site: Site) -> None:
    client = site.visitor(site.user)
    token, csrf = client.cookies["rerankd-session"], site.csrf(client)
    assert client.post("/sign-out", data={"csrf": csrf}).status_code == 303
    client.cookies.set("rerankd-session", token)
    assert client.get("/account").status_code == 303
    assert client.post("/keys", data={"csrf": csrf, "name": "a"}).headers["location"] == "/sign-in"
    assert site.store.keys.of_account(site.user.id) == []


def test_who_is_no_administrator_any_more_acts_as_none(site: Site) -> None:
    second = site.store.accounts.create("second@example.com", "", PASSWORD, "admin")
    client = site.visitor(second)
    csrf = site.csrf(client)
    site.store.accounts.set_role(second.id, "user")
    assert client.get("/admin").status_code == 403
    form = {"csrf": csrf, "amount": "5"}
    assert client.post(f"/admin/accounts/{second.id}/credit", data=form).status_code == 403


@pytest.mark.parametrize("path", ["/sign-in", "/sign-in?next=", "/sign-in?next=/keys"])
def test_where_a_sign_in_leads_is_a_page_of_ours(site: Site, path: str) -> None:
    for after in (
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/keys\r\na: b",
        "/x",
    ):
        signed_in = site.visitor(site.user)
        assert signed_in.get("/sign-in", params={"next": after}).headers["location"] == "/"
        guest = site.visitor()
        page = guest.get("/sign-in", params={"next": after})
        assert page.status_code == 200
        form = {"csrf": guest.cookies["rerankd-form"], "email": "user@example.com", "password": PASSWORD, "next": after}
        assert guest.post(path, data=form).headers["location"] == "/"


# What people type is text.

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</title></textarea></select><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt; &#x27; <!-- ]]>",
)

SQL = ("'; DROP TABLE accounts; --", '" OR "1"="1', "%_\\", ":name %(name)s %s ? $1", "a''b", "\u2019\U0001f511中文")


class Shape(HTMLParser):
    """The elements of a page, and the names of their attributes: all but its texts and values."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.addresses += [value or "" for name, value in attributes if name in ("href", "src", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(("/" + tag,))

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!",))


TABS = ("", "/statement", "/calls", "/log")
"""The pages of one account."""


def shapes(folder: Path, text: str) -> dict[str, Shape]:
    """Every page of a site on which `text` stands wherever a person can put one."""
    folder.mkdir()
    site, one, key = named_site(folder, text)
    pages: dict[str, Any] = {}
    admin, user, stranger = site.visitor(site.admin), site.visitor(one), site.visitor()
    paths = {
        admin: ("/admin", "/admin/log", "/admin/usage", *(f"/admin/accounts/{one.id}{tab}" for tab in TABS)),
        user: ("/keys", "/usage", "/statement", "/calls", "/account"),
        stranger: ("/", "/rates"),
    }
    for client, seen in paths.items():
        for path in seen:
            pages[path] = client.get(path)
    # Asked for in the address
    for path in (
        f"/sign-in?next={text}",
        f"/usage?days={text}",
        f"/admin/accounts/{one.id}?done={text}",
        f"/keys?{text}",
        f"/calls?id={quote(text)}",
        f"/admin?search={quote(text)}",
    ):
        client = stranger if path.startswith("/sign-in") else admin
        pages[path.partition("=")[0].partition(text)[0]] = client.get(path)
    # Typed into a form that is refused
    wrong = {
        "name": text * 20,
        "email": text,
        "amount": text,
        "note": text,
        "expires": text,
        "next": text,
        "model": text,
    }
    wrong |= {"requests_per_minute": text, "tokens_per_minute": text, "concurrency": text, "role": text, "invite": text}
    for path in (
        "/admin/accounts",
        "/admin/invites",
        f"/admin/accounts/{one.id}/credit",
        f"/admin/accounts/{one.id}/limits",
    ):
        pages[f"POST {path}"] = admin.post(path, data={**wrong, "csrf": site.csrf(admin)})
    pages["POST /keys"] = user.post("/keys", data={**wrong, "csrf": site.csrf(user)})
    for path in ("/sign-in", "/sign-up"):
        pages[f"POST {path}"] = stranger.post(path, data={**wrong, "csrf": stranger.cookies["rerankd-form"]})
    # A key that is made, and one that is gone
    user.post("/keys", data={"csrf": site.csrf(user), "name": text, "model": f"model {text}"})
    pages["a new key"] = user.get("/keys")
    assert "Copy it now" in pages["a new key"].text and text in html.unescape(pages["a new key"].text)
    site.store.keys.revoke(key)
    pages["a key that is gone"] = user.get("/keys")
    for name, response in pages.items():
        assert response.headers["content-type"].startswith("text/html"), name
        assert response.status_code == (200 if not name.startswith("POST") else response.status_code) != 500
    site.store.database.close()
    return {name: Shape(response.text) for name, response in pages.items()}


def email_of(text: str) -> str:
    return re.sub(r"[@\s]", "", text).lower() + "@example.com"


def named_site(folder: Path, text: str) -> tuple[Site, Account, int]:
    """A site, an account and a key of it; `text` is in their names, in a note and in the price list."""
    config = folder / "rerankd.toml"
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    words = f'description = "{quoted}"\nlanguages = "{quoted}"\ninput_price = 1\nfree_tokens = 5'
    config.write_text(f'[rates."model {quoted}"]\n{words}\n')
    settings = ServerSettings(accounts=True, config=config, sign_up="invite")
    info = replace(INFO, name=f"model {text}", notice=text, device=text, dtype=text, prompt_id=text)
    site = site_of(new_store(folder), settings, loaded_models(info))
    store = site.store
    email = email_of(text)
    one = store.accounts.create(email, text, PASSWORD)
    key, secret = store.keys.create(one.id, text, models=[f"model {text}"])
    store.keys.create(one.id, f"another {text}")
    store.ledger.add_credits(one.id, 10**9, text, site.admin.id)
    caller = store.keys.find(secret)
    assert caller
    price = site.prices.current().of([f"model {text}"])
    store.ledger.settle(store.ledger.reserve(caller, price, CallCost(100, "1", b"x")))
    return site, one, key.id


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shape]:
    return shapes(tmp_path_factory.mktemp("plain") / "site", "plain")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_element_is_born_of_a_text(text: str, plain: dict[str, Shape], tmp_path: Path) -> None:
    """The pages have the same elements with the same attributes, whatever people are called."""
    hostile = shapes(tmp_path / "site", text)
    assert len(hostile) == len(plain)
    for (name, page), expected in zip(hostile.items(), plain.values(), strict=True):
        assert page.elements == expected.elements, name
        assert all(re.match(r"/(?!/)|#|otpauth://totp/", address) for address in page.addresses), name


@pytest.fixture
def named(store: Store) -> Callable[..., Site]:
    """The pages on a database of either kind."""

    def make() -> Site:
        return site_of(store, ServerSettings(accounts=True, sign_up="open"))

    return make


def test_names_are_stored_and_shown_as_they_are(named: Callable[..., Site]) -> None:
    site = named()
    admin, user = site.visitor(site.admin), site.visitor(site.user)
    for number, text in enumerate((*SQL, *HOSTILE)):
        email = email_of(f"{number}{text}")
        form = {"csrf": site.csrf(admin), "email": email, "name": text}
        assert admin.post("/admin/accounts", data=form).status_code == 303
        account = site.store.accounts.by_email(email)
        assert account and (account.email, account.name) == (email, text)
        assert user.post("/keys", data={"csrf": site.csrf(user), "name": text}).status_code == 303
        assert site.store.keys.of_account(site.user.id)[0].name == text
        form = {"csrf": site.csrf(admin), "amount": "1", "note": text}
        assert admin.post(f"/admin/accounts/{account.id}/credit", data=form).status_code == 303
        shown, keys = html.unescape(admin.get("/admin").text), html.unescape(user.get("/keys").text)
        assert text in shown and email in shown and text in keys
    with site.store.database.read() as connection:
        notes = connection.scalars(select(schema.entries.c.note).order_by(schema.entries.c.id)).all()
    assert notes == [*SQL, *HOSTILE] and site.store.ledger.check() == []


ODD = ("\0", "user\0@example.com", "a\0' OR 1=1 --@example.com", "\ud800", "\x1b[31m")


def test_nothing_that_is_typed_breaks_a_query(named: Callable[..., Site]) -> None:
    """By anybody, in any field: refused, or taken as it is."""
    site = named()
    for number, text in enumerate((*SQL, *ODD)):
        stranger, admin = site.visitor(host=f"192.0.2.{number}"), site.visitor(site.admin)
        stranger.get("/sign-in")
        raw = text.encode("utf-8", "surrogatepass")
        names = "email name password new again invite next note expires role disabled model".split()
        typed = dict.fromkeys(names, raw)

        def post(client: TestClient, path: str, typed: Mapping[str, bytes] = typed, **fields: str | bytes) -> int:
            return client.post(path, content=urlencode({**typed, **fields}), headers=FORM).status_code

        for path in ("/sign-in", "/sign-up"):
            assert post(stranger, path, csrf=stranger.cookies["rerankd-form"]) in (400, 403), text
        forms = [path for path in forms_of(site, admin) if "/admin" in path or path == "/keys"]
        forms.remove(f"/admin/accounts/{site.user.id}/delete")
        assert len(forms) >= 7
        for path in forms:
            for amount in (b"1", raw):
                assert post(admin, path, csrf=site.csrf(admin), amount=amount) in (200, 303, 400), (path, text)
        for name in (b"rerankd-session", b"rerankd-form"):
            cookie = {b"cookie": name + b"=" + raw.replace(b"\0", b"\\000").replace(b"\x1b", b"\\033")}
            assert site.visitor().get("/keys", headers=cookie).status_code == 303
            form = {b"content-type": b"application/x-www-form-urlencoded", **cookie}
            refused = site.visitor().post("/sign-in", content=urlencode({"csrf": raw}), headers=form)
            assert refused.status_code in (403, 400)
    assert site.store.accounts.by_id(site.admin.id) and site.store.ledger.check() == []
