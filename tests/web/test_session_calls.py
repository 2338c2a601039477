"""The playground of a signed-in visitor calls the API without a key, and no other page can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from rerankd.accounts.accounts import Account
from rerankd.accounts.store import Store
from rerankd.accounts.usage import usage
from rerankd.server.models import Models
from rerankd.server.served import ServedModel
from support.fakes import NumberedModel, scorer_of
from support.serving import serving_model
from support.site import PASSWORD, new_store

PATH = "/compatible-api/v1/reranks"
CALL = {"model": "qwen3-rerank", "query": "q", "documents": ["1", "3", "2"]}
CARD = '[rates."qwen3-rerank"]\ninput_price = 1000\n'


@dataclass
class Host:
    """A server with accounts, and one of them."""

    client: httpx2.Client
    store: Store
    user: Account

    def post(self, secret: str = "", path: str = PATH, body: Any = None, **headers: str) -> httpx2.Response:
        cookie = {"cookie": f"rerankd-session={secret}"} if secret else {}
        sent = {name.replace("_", "-"): value for name, value in {**cookie, **headers}.items()}
        raw = {name.encode(): value.encode() for name, value in sent.items()}
        return self.client.post(path, json=body or CALL, headers=raw)

    def signed_in(self) -> tuple[str, dict[str, str]]:
        """(a session's secret, the headers that a page of this server sends with it)."""
        secret = self.store.sessions.open(self.user.id)
        session = self.store.sessions.find(secret)
        assert session
        return secret, {"x_rerankd_csrf": session.csrf, "sec_fetch_site": "same-origin"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    store = new_store(tmp_path)
    config = tmp_path / "rerankd.toml"
    config.write_text(CARD)
    user = store.accounts.create("user@example.com", "", PASSWORD)
    store.ledger.add_credits(user.id, 1_000_000)
    models = Models(ServedModel(lambda _: scorer_of(NumberedModel())))
    with serving_model(models, store=store, accounts=True, config=config) as client:
        yield Host(client, store, user)


def test_a_session_calls_and_pays(host: Host) -> None:
    secret, headers = host.signed_in()
    for _ in range(2):
        response = host.post(secret, **headers)
        assert response.status_code == 200, response.text
        assert [result["index"] for result in response.json()["results"]] == [1, 2, 0]
    (row,) = usage(host.store.database, ["key"])
    assert (row.calls, row.cost) == (2, 2 * int(response.headers["x-rerankd-cost"]))
    assert row.key is not None and row.key.startswith("Playground")
    assert host.store.ledger.check() == []
    assert host.store.keys.of_account(host.user.id) == []  # none that one could copy


def test_without_its_token_a_session_calls_nothing(host: Host) -> None:
    secret, headers = host.signed_in()
    token = headers["x_rerankd_csrf"]
    _, others = host.signed_in()
    own = f"http://{host.client.base_url.host}:{host.client.base_url.port}"
    for wrong in ("", token[:-1], token + "a", "é", others["x_rerankd_csrf"]):
        assert host.post(secret, x_rerankd_csrf=wrong, sec_fetch_site="same-origin").status_code == 401, wrong
    assert host.post(secret, sec_fetch_site="same-origin", origin=own).status_code == 401
    for site in ("cross-site", "same-site", "none", "nonsense", ""):
        assert host.post(secret, **{**headers, "sec_fetch_site": site}, origin=own).status_code == 401, site
    for origin in ("https://evil.example", "null", "", own + "0", own.replace("http://", "http://x.")):
        assert host.post(secret, x_rerankd_csrf=token, origin=origin).status_code == 401, origin
    assert host.post(secret, x_rerankd_csrf=token).status_code == 401  # neither: no browser
    assert host.post("", **headers).status_code == 401
    assert host.post("a" * 43, **headers).status_code == 401
    assert usage(host.store.database, ["key"]) == []
    assert host.post(secret, x_rerankd_csrf=token, origin=own).status_code == 200  # over http, to another machine


def test_a_session_reads_nothing_else(host: Host) -> None:
    secret, headers = host.signed_in()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    for path in ("/v1/models", "/info"):
        response = host.client.get(path, headers={"cookie": f"rerankd-session={secret}", **sent})
        assert response.status_code == 401, path


def test_a_session_that_ended_calls_nothing(host: Host) -> None:
    secret, headers = host.signed_in()
    assert host.post(secret, **headers).status_code == 200
    host.store.sessions.close(secret)
    response = host.post(secret, **headers)
    assert response.status_code == 401
    secret, headers = host.signed_in()
    host.store.accounts.disable(host.user.id)
    assert host.post(secret, **headers).status_code == 401


def test_the_key_of_the_playground_is_no_secret_and_can_be_revoked(host: Host) -> None:
    secret, headers = host.signed_in()
    assert host.post(secret, **headers).status_code == 200
    (key,) = host.store.keys.all()
    for text in ("Playground", "signed in", f"playground{host.user.id}", f"playground\0{host.user.id}"):
        assert host.store.keys.find(text) is None
    host.store.keys.revoke(key.id)
    assert host.post(secret, **headers).status_code == 401
    assert [one.id for one in host.store.keys.all()] == [key.id]


def test_a_key_that_is_sent_counts_before_the_session(host: Host) -> None:
    secret, headers = host.signed_in()
    other = host.store.accounts.create("other@example.com")
    host.store.ledger.add_credits(other.id, 1_000_000)
    key = host.store.keys.create(other.id, "theirs")[1]
    assert host.post(secret, **headers, authorization=f"Bearer {key}").status_code == 200
    assert host.post(secret, **headers, authorization="Bearer wrong").status_code == 401
    (row,) = usage(host.store.database, ["account"])
    assert row.account_id == other.id


def test_a_session_without_credit_is_refused(host: Host) -> None:
    secret, headers = host.signed_in()
    host.store.ledger.add_credits(host.user.id, -1_000_000)
    assert host.post(secret, **headers).status_code == 429
