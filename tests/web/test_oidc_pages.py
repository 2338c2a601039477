"""Signing in at an OpenID provider, which is a real one on this machine: who gets in, and everything that must not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import RSAKey
from playwright.sync_api import Page, expect

from rerankd.accounts.second_factor import code_of, new_secret
from rerankd.oidc.provider import MAX_REPLY_BYTES
from rerankd.web.throttle import PER_EMAIL
from support.looks import check
from support.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    OidcProvider,
    Person,
    oidc_provider,
    signed_with_public_key,
    unsigned,
)
from support.site import PASSWORD, Site

CALLBACK = "/sign-in/oidc/callback"


@pytest.fixture
def provider() -> Iterator[OidcProvider]:
    with oidc_provider() as running:
        running.registration.redirect_uris.add(f"http://testserver{CALLBACK}")
        yield running


@pytest.fixture
def make_oidc(make_site: Callable[..., Site], provider: OidcProvider) -> Callable[..., Site]:
    """The pages of a server that is registered at the provider: `make_oidc(oidc_sign_up=True)`."""

    def make(**changes: Any) -> Site:
        registered = {"oidc_client_id": CLIENT_ID, "oidc_client_secret": CLIENT_SECRET, "oidc_name": "Example ID"}
        return make_site(**{"oidc_issuer": provider.issuer, **registered, **changes})

    return make


def begin(client: TestClient, after: str = "") -> str:
    """Presses the button; returns where the provider sends the browser back to."""
    there = client.get("/sign-in/oidc", params={"next": after} if after else {})
    assert there.status_code == 303, there.text
    with httpx2.Client() as browser:
        back = browser.get(there.headers["location"])
    assert back.status_code in (302, 303), back.text
    return back.headers["location"]


def end(client: TestClient, address: str) -> Any:
    """The browser follows the provider."""
    assert address.startswith(f"http://testserver{CALLBACK}?")
    return client.get(address)


def sign_in(client: TestClient, after: str = "") -> Any:
    return end(client, begin(client, after))


def is_in(client: TestClient) -> bool:
    return client.get("/account").status_code == 200


def confirm(client: TestClient, **fields: str) -> Any:
    page = client.get("/sign-in/confirm", params={"next": "/keys"})
    assert page.status_code == 200
    form = {"csrf": client.cookies["rerankd-form"], "next": "/keys", **fields}
    return client.post("/sign-in/confirm", data=form)


def code_now(secret: str) -> str:
    return code_of(secret, int(time.time()) // 30)


def turn_on_factor(site: Site, secret: str) -> None:
    """With the code of half a minute ago, so that that of now still signs in."""
    site.store.second_factors.turn_on(site.user.id, secret, code_of(secret, int(time.time()) // 30 - 1))


def linked(site: Site, provider: OidcProvider) -> None:
    """The person of the provider signs in to the user's account."""
    assert provider.person
    site.store.identities.link(site.user.id, provider.issuer, provider.person.subject)


# Who gets in.


def test_who_is_linked_signs_in(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    assert "Sign in with Example ID" in site.visitor().get("/sign-in?next=/usage").text
    linked(site, provider)
    client = site.visitor()
    planted = site.store.sessions.open(site.admin.id)
    attempt = begin(client, "/usage")
    client.cookies.set("rerankd-session", planted)
    done = end(client, attempt)
    assert (done.status_code, done.headers["location"]) == (303, "/usage")
    cookies = done.headers.get_list("set-cookie")
    session = next(one for one in cookies if one.startswith("rerankd-session="))
    assert "HttpOnly" in session and "SameSite=lax" in session and planted not in session
    assert any(one.startswith('rerankd-attempt=""') for one in cookies), "the attempt is over"
    assert site.store.sessions.find(planted) is None, "a planted session ends"
    fresh = site.visitor()
    assert sign_in(fresh).headers["location"] == "/" and is_in(fresh)
    # The address at the provider does not matter any more
    assert provider.person
    provider.person.email, provider.person.is_verified = "other@example.com", False
    again = site.visitor()
    assert sign_in(again).headers["location"] == "/" and is_in(again)
    # A session leads on, and signing out ends it
    assert fresh.get("/sign-in/oidc?next=/keys").headers["location"] == "/keys"
    assert fresh.post("/sign-out", data={"csrf": site.csrf(fresh)}).status_code == 303 and not is_in(fresh)


def test_the_request_to_the_provider(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site, seen = make_oidc(), []
    for _ in range(2):
        response = site.visitor().get("/sign-in/oidc")
        asked = parse_qs(urlsplit(response.headers["location"]).query)
        assert asked["scope"] == ["openid email profile"] and asked["code_challenge_method"] == ["S256"]
        assert CLIENT_SECRET not in response.headers["location"]
        cookie = response.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        values = [asked[name][0] for name in ("state", "nonce", "code_challenge")]
        assert len(set(values)) == 3 and not any(value in cookie for value in values)
        seen += values
    assert len(set(seen)) == 6, "each attempt has its own values"
    assert "Secure" in site.visitor(https=True).get("/sign-in/oidc").headers["set-cookie"]


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_the_secret_is_sent_as_the_provider_takes_it(
    make_oidc: Callable[..., Site], provider: OidcProvider, method: str
) -> None:
    provider.described = {"token_endpoint_auth_methods_supported": [method]}
    provider.rotate(RSAKey.generate_key(2048, {"kid": "rsa"}))
    site = make_oidc()
    linked(site, provider)
    assert sign_in(site.visitor()).headers["location"] == "/"


def test_who_is_unknown_gets_an_account_where_that_is_set(
    make_oidc: Callable[..., Site], provider: OidcProvider
) -> None:
    provider.person = Person("1", "New@Example.com", name="Nadja \N{LATIN SMALL LETTER E WITH ACUTE}")
    site = make_oidc(oidc_sign_up=True)
    client = site.visitor()
    assert sign_in(client, "/keys").headers["location"] == "/keys"
    account = site.store.accounts.by_email("new@example.com")
    assert account and (account.name, account.role, account.has_password) == ("Nadja é", "user", False)
    page = client.get("/account").text
    assert "Example ID" in page and "Change the password" not in page
    # No password opens it
    guest = site.visitor()
    guest.get("/sign-in")
    form = {"csrf": guest.cookies["rerankd-form"], "email": "new@example.com", "password": ""}
    assert guest.post("/sign-in", data=form).status_code == 403
    # The same person, and another with the same name
    assert sign_in(site.visitor()).headers["location"] == "/"
    provider.person.subject = "2"
    other = sign_in(site.visitor())
    assert other.status_code == 403 and "has no password" in other.text


def test_who_is_unknown_is_refused_otherwise(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    provider.person = Person("1", "new@example.com")
    site = make_oidc()
    client = site.visitor()
    refused = sign_in(client)
    assert refused.status_code == 403 and "new@example.com has no account here" in refused.text
    assert not is_in(client) and site.store.accounts.by_email("new@example.com") is None


def test_only_addresses_of_some_domains(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc(oidc_sign_up=True, oidc_domain=("@Example.org", "example.com"))
    linked(site, provider)
    assert sign_in(site.visitor()).headers["location"] == "/"
    for email, is_verified in (
        ("user@example.com", False),
        ("user@evil.com", True),
        ("user@example.com.evil.com", True),
        ("user@evilexample.com", True),
        ("example.com", True),
        ("a@example.com\n@evil.com", True),
        ("", True),
    ):
        provider.person = Person(email=email, is_verified=is_verified)
        refused = sign_in(site.visitor())
        assert refused.status_code == 403 and "other e-mail addresses only" in refused.text, email
    provider.person = Person("3", "new@EXAMPLE.ORG")
    assert sign_in(site.visitor()).headers["location"] == "/"


# An account that has the address already.


def test_an_account_is_linked_after_its_password(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc(oidc_sign_up=True)
    client = site.visitor()
    asked = sign_in(client, "/keys")
    assert asked.headers["location"] == "/sign-in/confirm?next=%2Fkeys" and not is_in(client)
    assert "Link Example ID" in client.get("/sign-in/confirm").text
    wrong = confirm(client, password="a guess")
    assert wrong.status_code == 403 and "wrong" in wrong.text
    assert site.store.identities.of_account(site.user.id) == []
    done = confirm(client, password=PASSWORD)
    assert done.headers["location"] == "/keys" and is_in(client)
    assert sign_in(site.visitor()).headers["location"] == "/", "from now on without the password"
    # Used up
    assert client.get("/sign-in/confirm").headers["location"] == "/sign-in"
    # And undone by the owner, with the password
    page = client.get("/account").text
    assert "Example ID" in page
    wrong = client.post("/account/unlink", data={"csrf": site.csrf(client), "password": "a guess"})
    assert wrong.status_code == 400
    undone = client.post("/account/unlink", data={"csrf": site.csrf(client), "password": PASSWORD})
    assert undone.headers["location"] == "/account?done=unlinked"
    assert "confirm" in sign_in(site.visitor()).headers["location"]


def test_its_password_is_not_guessed_here(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    client = site.visitor()
    sign_in(client)
    statuses = [confirm(client, password=f"guess {number}").status_code for number in range(PER_EMAIL + 1)]
    assert statuses == [403] * PER_EMAIL + [429]
    assert confirm(client, password=PASSWORD).status_code == 429


def test_a_confirmation_belongs_to_one_browser(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    sign_in(site.visitor())
    for token in ("", "a" * 43, "é", "\0"):
        stranger = site.visitor()
        stranger.get("/sign-in")
        stranger.cookies.set("rerankd-confirm", token.encode().hex())
        assert stranger.get("/sign-in/confirm").headers["location"] == "/sign-in"
        form = {"csrf": stranger.cookies["rerankd-form"], "password": PASSWORD}
        assert stranger.post("/sign-in/confirm", data=form).headers["location"] == "/sign-in"
        forged = stranger.post("/sign-in/confirm", data={**form, "csrf": "x"})
        assert forged.status_code == 403


def test_an_address_links_alone_where_the_provider_is_trusted(
    make_oidc: Callable[..., Site], provider: OidcProvider
) -> None:
    site = make_oidc(oidc_trust_email="verified")
    assert provider.person
    provider.person.is_verified = False
    refused = sign_in(site.visitor())
    assert refused.status_code == 403 and "has not verified your e-mail address" in refused.text
    provider.claims = {"email_verified": None}
    assert sign_in(site.visitor()).status_code == 403, "nothing said is not verified"
    provider.claims = {"email_verified": "true"}
    assert sign_in(site.visitor()).headers["location"] == "/"


def test_an_unverified_address_counts_only_where_all_are_trusted(
    make_oidc: Callable[..., Site], provider: OidcProvider
) -> None:
    provider.claims = {"email_verified": None}
    site = make_oidc(oidc_trust_email="all", oidc_domain=("example.com",))
    assert sign_in(site.visitor()).headers["location"] == "/"


def test_a_disabled_account_stays_shut(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    client = site.visitor()
    sign_in(client)
    site.store.accounts.disable(site.user.id)
    assert client.get("/sign-in/confirm").headers["location"] == "/sign-in", "it was asked before"
    assert "disabled" in sign_in(site.visitor()).text
    linked(site, provider)
    refused = sign_in(site.visitor())
    assert refused.status_code == 403 and "disabled" in refused.text


def test_a_second_factor_is_asked_for_here_too(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site, secret = make_oidc(), new_secret()
    linked(site, provider)
    turn_on_factor(site, secret)
    client = site.visitor()
    assert sign_in(client).headers["location"] == "/sign-in/confirm?next=%2F" and not is_in(client)
    assert "Second factor" in client.get("/sign-in/confirm").text
    assert confirm(client, code="000000x").status_code == 403
    assert confirm(client, code=code_now(secret)).headers["location"] == "/keys" and is_in(client)


def test_a_link_takes_password_and_code(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site, secret = make_oidc(), new_secret()
    turn_on_factor(site, secret)
    client = site.visitor()
    sign_in(client)
    assert confirm(client, password=PASSWORD).status_code == 403
    assert confirm(client, password="a guess", code=code_now(secret)).status_code == 403
    assert confirm(client, password=PASSWORD, code=code_now(secret)).headers["location"] == "/keys"


# What must not open a session.


def test_an_answer_that_this_browser_did_not_ask_for(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    # An attacker's answer, in the browser of a victim: with no attempt, and during an attempt of its own
    attackers = begin(site.visitor())
    for is_busy in (False, True):
        victim = site.visitor()
        if is_busy:
            begin(victim)
        refused = end(victim, attackers)
        assert refused.status_code == 400 and "not begun in this browser" in refused.text and not is_in(victim)
    for state in ("", "x", "é", "a" * 43):
        client = site.visitor()
        code = parse_qs(urlsplit(begin(client)).query)["code"][0]
        assert client.get(CALLBACK, params={"code": code, "state": state}).status_code == 400
        assert not is_in(client)
    address = begin(site.visitor())
    for planted in ("nonsense", "a" * 43, "%00"):
        client = site.visitor()
        client.cookies.set("rerankd-attempt", planted)
        assert end(client, address).status_code == 400


def test_a_code_works_once(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    client = site.visitor()
    address = begin(client)
    attempt = client.cookies["rerankd-attempt"]
    assert end(client, address).headers["location"] == "/"
    thief = site.visitor()
    assert end(thief, address).status_code == 400
    thief.cookies.set("rerankd-attempt", attempt)
    refused = end(thief, address)
    assert refused.status_code == 403 and "failed" in refused.text and not is_in(thief)
    assert thief.get(CALLBACK, params={"state": "x"}).status_code == 400


def test_a_code_of_another_attempt(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    """PKCE: the code of one browser does not fit the attempt of another."""
    site = make_oidc()
    linked(site, provider)
    stolen = parse_qs(urlsplit(begin(site.visitor())).query)["code"][0]
    thief = site.visitor()
    state = parse_qs(urlsplit(begin(thief)).query)["state"][0]
    refused = thief.get(CALLBACK, params={"code": stolen, "state": state})
    assert refused.status_code == 403 and not is_in(thief)


LIES: Mapping[str, dict[str, Any]] = {
    "another nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "another recipient": {"aud": "somebody else"},
    "other recipients": {"aud": ["somebody else"]},
    "several recipients without the one who asked": {"aud": [CLIENT_ID, "somebody else"]},
    "asked by another": {"azp": "somebody else"},
    "no recipient": {"aud": None},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "expired": {"exp": 1_600_000_000},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "tomorrow"},
    "not valid yet": {"nbf": 4_000_000_000},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a long subject": {"sub": "x" * 256},
    "a subject that is no text": {"sub": 7},
}


def test_a_token_that_is_not_for_this_sign_in(
    make_oidc: Callable[..., Site], provider: OidcProvider, caplog: pytest.LogCaptureFixture
) -> None:
    site = make_oidc()
    linked(site, provider)
    client = site.visitor()
    for lie, claims in LIES.items():
        provider.claims = claims
        refused = sign_in(client)
        assert refused.status_code == 403 and not is_in(client), lie
        assert "The sign-in at Example ID failed" in refused.text, lie
    assert caplog.text.count("A sign-in at") == len(LIES) and CLIENT_SECRET not in caplog.text
    provider.claims = {"aud": [CLIENT_ID]}  # a list of one is usual
    assert sign_in(client).headers["location"] == "/"


def forgeries(provider: OidcProvider) -> dict[str, Callable[[Mapping[str, Any]], str]]:
    other = OidcProvider()

    def changed(claims: Mapping[str, Any]) -> str:
        head, body, signature = provider.signed(claims).split(".")
        return f"{head}.{body[:-4]}AAAA.{signature}"

    return {
        "the algorithm none": unsigned,
        "a published key as secret": signed_with_public_key(provider),
        "somebody's key under the published id": lambda claims: other.signed(claims, kid=provider.keys[-1].kid),
        "somebody's key": other.signed,
        "changed": changed,
        "no signature": lambda claims: provider.signed(claims).rpartition(".")[0] + ".",
        "no token": lambda _: "nonsense",
        "empty": lambda _: "",
        "five parts": lambda _: "e30.e30.e30.e30.e30",
    }


def test_a_forged_token(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    client = site.visitor()
    for name, forge in forgeries(provider).items():
        provider.forge = forge
        refused = sign_in(client)
        assert refused.status_code == 403 and "failed" in refused.text and not is_in(client), name
    provider.forge = None
    assert sign_in(client).headers["location"] == "/"


def test_keys_are_fetched_again_when_they_change(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    for _ in range(2):
        assert sign_in(site.visitor()).headers["location"] == "/"
    assert provider.requests.count("/keys") == 1, "they are kept"
    old = provider.keys[-1]
    provider.rotate()
    assert sign_in(site.visitor()).headers["location"] == "/"
    assert provider.requests.count("/keys") == 2
    # Keys that are withdrawn are not believed after that
    new = provider.keys[-1]
    provider.keys = [new, old]
    provider.forge = lambda claims: OidcProvider.signed(provider, claims)
    provider.keys = [old]
    forged = provider.signed({"iss": provider.issuer})
    provider.keys, provider.forge = [new], lambda _: forged
    assert sign_in(site.visitor()).status_code == 403
    # Several keys, and a token that names none of them
    provider.rotate(number=2)
    provider.forge = lambda claims: provider.signed(claims, kid=None)
    assert sign_in(site.visitor()).status_code == 403


def test_a_sign_in_leads_to_a_page_of_ours(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    for after in ("https://evil.example", "//evil.example", "/\\evil.example", "/keys\r\na: b", "/x"):
        assert sign_in(site.visitor(), after).headers["location"] == "/"
        assert site.visitor(site.user).get("/sign-in/oidc", params={"next": after}).headers["location"] == "/"
        # Nor where the cookie is not ours
        client, planted = site.visitor(), site.visitor()
        address = begin(client)
        kept = client.cookies["rerankd-attempt"].partition("%2F")[0]
        planted.cookies.set("rerankd-attempt", kept + quote(after, safe=""))
        assert end(planted, address).headers.get("location", "/") == "/"


# A provider that does not work.


def test_a_provider_that_is_down(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    linked(site, provider)
    client = site.visitor()
    provider.status = 503
    down = client.get("/sign-in/oidc")
    assert down.status_code == 503 and "Example ID does not answer now" in down.text
    assert 'name="password"' in down.text, "the password still signs in"
    provider.status = 200
    address = begin(client)
    provider.status = 500
    assert end(client, address).status_code == 503 and not is_in(client)
    provider.status = 200
    assert sign_in(client).headers["location"] == "/"


def test_a_provider_that_is_not_there(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc(oidc_issuer="http://127.0.0.1:1")
    assert site.visitor().get("/sign-in/oidc").status_code == 503
    assert site.visitor().get("/sign-in").status_code == 200


BAD_DESCRIPTIONS: tuple[dict[str, Any], ...] = (
    {"issuer": "https://evil.example"},
    {"token_endpoint": "http://evil.example/token"},
    {"jwks_uri": None},
    {"authorization_endpoint": "javascript:alert(1)"},
    {"padding": "x" * MAX_REPLY_BYTES},
)


def test_a_provider_that_describes_itself_badly(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    client = make_oidc().visitor()
    for provider.described in BAD_DESCRIPTIONS:
        refused = client.get("/sign-in/oidc")
        assert refused.status_code == 503 and "evil" not in refused.text


def test_who_cancels_at_the_provider(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    provider.person = None
    client = site.visitor()
    refused = sign_in(client)
    assert refused.status_code == 403 and "You cancelled the sign-in at Example ID" in refused.text
    hostile = client.get(CALLBACK, params={"error": "<script>", "error_description": "<script>"})
    assert hostile.status_code == 400 and "<script>" not in re.sub(r"<script (type|src)", "", hostile.text)


# Linking from the account, and signing out there.


def link(client: TestClient, token: str) -> Any:
    """Presses the button of the account page, and comes back from the provider."""
    there = client.get("/sign-in/oidc", params={"link": token})
    if not there.headers["location"].startswith("http://127.0.0.1"):
        return there
    with httpx2.Client() as browser:
        return end(client, browser.get(there.headers["location"]).headers["location"])


def link_of(client: TestClient) -> str:
    found = re.search(r"/sign-in/oidc\?link=(\w{64})", client.get("/account").text)
    assert found
    return found[1]


def test_a_signed_in_person_links_the_provider_with_the_password(
    make_oidc: Callable[..., Site], provider: OidcProvider
) -> None:
    site = make_oidc()
    assert provider.person
    provider.person.email, provider.person.is_verified = "another@example.net", False  # the address does not matter
    secret = new_secret()
    now = int(time.time()) // 30
    site.store.second_factors.turn_on(site.user.id, secret, code_of(secret, now - 1))
    client = site.visitor(site.user)
    back = link(client, link_of(client))
    assert back.headers["location"].startswith("/sign-in/confirm?")
    assert site.store.identities.of_account(site.user.id) == [], "not before the password"
    assert confirm(client, password="wrong", code=code_of(secret, now)).status_code == 403
    assert confirm(client, password=PASSWORD, code="000000").status_code == 403
    done = confirm(client, password=PASSWORD, code=code_of(secret, now), next="/account?done=linked")
    assert done.headers["location"] == "/account?done=linked"
    page = client.get("/account?done=linked").text
    assert "The provider is linked" in page and "link=" not in page and "Unlink Example ID" in page
    assert [one.subject for one in site.store.identities.of_account(site.user.id)] == [provider.person.subject]


def test_nobody_else_begins_to_link(make_oidc: Callable[..., Site], provider: OidcProvider) -> None:
    site = make_oidc()
    client, other = site.visitor(site.user), site.visitor(site.user)
    for token in ("", "x" * 64, link_of(other), "ä"):
        refused = client.get("/sign-in/oidc", params={"link": token})
        assert refused.headers["location"] == "/" and "rerankd-attempt" not in client.cookies
    # Signed out on the way
    there = client.get("/sign-in/oidc", params={"link": link_of(client)})
    client.post("/sign-out", data={"csrf": site.csrf(client)})
    with httpx2.Client() as browser:
        out = end(client, browser.get(there.headers["location"]).headers["location"])
    assert out.status_code == 403 and "You are signed out" in out.text
    # The person signs in to another account
    assert provider.person
    site.store.identities.link(site.admin.id, provider.issuer, provider.person.subject)
    taken = link(other, link_of(other))
    assert taken.status_code == 403 and "signs in to an account already" in taken.text
    assert site.store.identities.of_account(site.user.id) == []


def test_who_signs_in_at_the_provider_may_sign_out_there(
    make_oidc: Callable[..., Site], provider: OidcProvider
) -> None:
    site = make_oidc()
    stranger = site.visitor(site.admin)
    assert stranger.post("/sign-out", data={"csrf": site.csrf(stranger)}).headers["location"] == "/sign-in"
    linked(site, provider)
    client = site.visitor(site.user)
    assert client.post("/sign-out", data={"csrf": site.csrf(client)}).headers["location"] == "/sign-in?out"
    assert 'href="/sign-out/oidc"' in client.get("/sign-in?out").text
    assert not is_in(client)
    none = client.get("/sign-out/oidc")
    assert none.status_code == 404 and "Example ID does not let other sites sign you out" in none.text


HTTPS, HTTP = "https://id.example/end?a=b", "http://evil.example/end"


@pytest.mark.parametrize(
    "announced", [HTTPS, HTTP, "javascript:alert(1)", 7], ids=["https", "http", "script", "number"]
)
def test_where_the_provider_signs_out(make_oidc: Callable[..., Site], provider: OidcProvider, announced: Any) -> None:
    provider.described = {"end_session_endpoint": announced}
    led = make_oidc().visitor().get("/sign-out/oidc")
    if announced != HTTPS:
        assert led.status_code == 404
        return
    asked = parse_qs(urlsplit(led.headers["location"]).query)
    assert led.headers["location"].startswith(f"{announced}&") and asked["client_id"] == [CLIENT_ID]
    assert asked["post_logout_redirect_uri"] == ["http://testserver/sign-in"]


# The whole way, in a browser.


def test_the_way_through_a_browser(
    make_oidc: Callable[..., Site],
    serve: Callable[[Site], str],
    open_page: Callable[..., Page],
    provider: OidcProvider,
) -> None:
    url = serve(make_oidc())
    provider.registration.redirect_uris.add(f"{url}{CALLBACK}")
    provider.asks, provider.described = True, {"end_session_endpoint": f"{provider.issuer}/logout"}
    open_page(f"{provider.issuer}/keys")  # the one other site that this test may ask
    page = open_page(f"{url}/keys")
    page.click("text=Sign in with Example ID")
    page.click("text=Continue")
    expect(page.get_by_role("heading", name="Link Example ID")).to_be_visible()
    expect(page.locator("#password")).to_be_focused()
    check(page, "confirm")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/keys")
    page.click("text=Sign out")
    page.wait_for_url(f"{url}/sign-in?out")
    check(page, "signed-out")
    page.click("text=Sign out of Example ID, too")
    page.wait_for_url(f"{url}/sign-in")
    assert provider.requests[-1] == "/logout"
    page.click("text=Sign in with Example ID")
    page.click("text=Continue")
    page.wait_for_url(f"{url}/")
    page.goto(f"{url}/account")
    check(page, "account-linked")
