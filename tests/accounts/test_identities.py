"""People at a provider who sign in to accounts, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest

ISSUER = "https://id.example"


def test_a_person_signs_in_to_one_account(store: Store) -> None:
    ann, bob = store.accounts.create("ann@example.org"), store.accounts.create("bob@example.org")
    assert store.identities.find(ISSUER, "1") is None
    store.identities.link(ann.id, ISSUER, "1")
    found = store.identities.find(ISSUER, "1")
    assert found and found.id == ann.id and store.identities.find("https://other.example", "1") is None
    with pytest.raises(InvalidRequest, match="another account"):
        store.identities.link(bob.id, ISSUER, "1")
    with pytest.raises(InvalidRequest, match="another account"):
        store.identities.create_account(ISSUER, "1", "new@example.org", "")
    assert store.accounts.by_email("new@example.org") is None, "all or nothing"
    store.identities.link(ann.id, ISSUER, "2")
    assert [one.subject for one in store.identities.of_account(ann.id)] == ["1", "2"]
    store.identities.unlink(ann.id)
    store.identities.unlink(ann.id)
    assert store.identities.of_account(ann.id) == [] and store.identities.find(ISSUER, "1") is None
    assert [one.action for one in store.admin_log.find(1)] == ["provider unlinked"]


def test_an_account_of_a_person(store: Store) -> None:
    account = store.identities.create_account(ISSUER, "1", "Ann@Example.org", "Ann")
    assert (account.email, account.name, account.role) == ("ann@example.org", "Ann", "user")
    assert not account.has_password
    assert store.accounts.check_password("ann@example.org", "") is None
    found = store.identities.find(ISSUER, "1")
    assert found and found.id == account.id
    with pytest.raises(InvalidRequest, match="has an account already"):
        store.identities.create_account(ISSUER, "2", "ann@example.org", "")
    assert store.identities.find(ISSUER, "2") is None


def test_a_sign_in_is_confirmed_once_and_soon(store: Store) -> None:
    ann = store.accounts.create("ann@example.org")
    token = store.identities.ask(ann.id, ISSUER, "1")
    asked = store.identities.asked(token)
    assert asked and asked.links and asked.account.id == ann.id and store.identities.asked("x" * 43) is None
    assert store.identities.confirm(token) == ann.id and store.identities.find(ISSUER, "1")
    for used in (token, "x" * 43):
        with pytest.raises(InvalidRequest, match="too long"):
            store.identities.confirm(used)
    again = store.identities.ask(ann.id)
    asked = store.identities.asked(again)
    assert asked and not asked.links and store.identities.confirm(again) == ann.id
    late = store.identities.ask(ann.id, ISSUER, "2")
    with store.database.transaction() as connection:
        connection.execute(update(schema.confirmations).values(expires=datetime.now(UTC) - timedelta(seconds=1)))
    assert store.identities.asked(late) is None
    with pytest.raises(InvalidRequest):
        store.identities.confirm(late)
    assert store.identities.find(ISSUER, "2") is None


def test_what_ends_a_confirmation(store: Store) -> None:
    ann = store.accounts.create("ann@example.org")

    def set_password(account_id: int) -> None:
        store.accounts.set_password(account_id, "a password")

    for end in (store.accounts.disable, store.accounts.enable, set_password):
        token = store.identities.ask(ann.id)
        end(ann.id)
        assert (store.identities.asked(token) is None) == (end != store.accounts.enable)
