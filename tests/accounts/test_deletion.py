"""What is left of a deleted account: the entries of the ledger, and nothing that tells whose they are."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from rerankd.accounts import schema
from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.decision import CallCost
from rerankd.accounts.deletion import delete_account
from rerankd.accounts.directory import list_accounts
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest
from rerankd.prices import Price

PRICE = Price(model="qwen3-rerank", input_price=Decimal("0.1"))
PERSONAL = ("ann@example.org", "Ann Arbor", "laptop of Ann", "subject-of-ann")


def everything(store: Store) -> str:
    """All rows of all tables but the log, which nobody can change."""
    tables = [table for table in schema.metadata.sorted_tables if table.name != "admin_log"]
    with store.database.read() as connection:
        rows: list[Any] = [connection.execute(select(table)).all() for table in tables]
    return repr(rows)


def test_nothing_names_the_owner_any_more(store: Store) -> None:
    admin = store.accounts.create("root@example.org", role="admin")
    invitation = store.invites.create(admin.id, "ann@example.org")
    ann = store.invites.use(invitation, "ann@example.org", "Ann Arbor", "a password")
    store.identities.link(ann.id, "https://id.example", "subject-of-ann")
    store.identities.ask(ann.id, "https://id.example", "subject-of-ann")
    store.ledger.add_credits(ann.id, 5_000_000)
    _, secret = store.keys.create(ann.id, "laptop of Ann")
    caller = store.keys.find(secret)
    assert caller
    store.ledger.settle(store.ledger.reserve(caller, PRICE, CallCost(1000, "1", b"x")))
    store.calls.add([CallRecord(ann.created, ann.id, caller.key_id, "id-of-ann", "vllm-rerank", 200, 3)])
    session, link = store.sessions.open(ann.id), store.links.for_password(ann.id, "owner")
    assert all(text in everything(store) for text in (*PERSONAL, "id-of-ann"))

    delete_account(store.database, ann.id, admin.id)
    left = everything(store)
    assert [text for text in (*PERSONAL, "id-of-ann") if text in left] == []
    account = store.accounts.by_id(ann.id)
    assert account and account.is_deleted and account.disabled and not account.has_password
    assert store.keys.find(secret) is None and store.sessions.find(session) is None
    with pytest.raises(InvalidRequest):
        store.links.set_password(link, "another password")
    assert store.ledger.check() == [] and account.balance == 5_000_000 - 100, "the books are as they were"
    assert [(one.action, one.account) for one in store.admin_log.find(1)] == [("account deleted", account.email)]
    for refused in (store.accounts.enable, lambda number: delete_account(store.database, number)):
        with pytest.raises(InvalidRequest, match="deleted"):
            refused(ann.id)
    assert store.accounts.create("ann@example.org").id != ann.id, "the address is free"


def test_one_administrator_stays(store: Store) -> None:
    admin = store.accounts.create("root@example.org", role="admin")
    with pytest.raises(InvalidRequest, match="only administrator"):
        delete_account(store.database, admin.id)
    with pytest.raises(InvalidRequest, match="no account 99"):
        delete_account(store.database, 99)
    second = store.accounts.create("second@example.org", role="admin")
    delete_account(store.database, admin.id, "owner")
    assert [account.id for account in list_accounts(store.database, "second").accounts] == [second.id]


def test_the_members_go_with_their_account_and_one_alone_when_another_owner_stays(store: Store) -> None:
    ann = store.accounts.create("ann@example.org", "", "correct horse battery")
    bob, eve = (
        store.members.add(ann.id, f"{name}@example.org", "", "correct horse battery", "owner")
        for name in ("bob", "eve")
    )
    delete_account(store.database, bob.id)
    assert [one.email for one in store.members.of(ann.id)] == ["ann@example.org", "eve@example.org"]
    store.members.set_role(ann.id, ann.id, "viewer")
    with pytest.raises(InvalidRequest, match="only owner"):
        delete_account(store.database, eve.id)
    token = store.sessions.open(eve.id)
    delete_account(store.database, ann.id)
    assert store.sessions.find(token) is None and store.accounts.by_email("eve@example.org") is None
