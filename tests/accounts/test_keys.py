"""API keys: who is let in, and that secrets are nowhere."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text, update

from rerankd.accounts import schema
from rerankd.accounts.accounts import Account
from rerankd.accounts.keys import MAX_KEYS, Caller
from rerankd.accounts.store import Store, open_store
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits

TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def ann(store: Store) -> Account:
    return store.accounts.create("ann@example.org", limits=CallLimits(1, 2, 3))


def test_a_key_lets_its_account_in(store: Store, ann: Account) -> None:
    limits = CallLimits(60, 100_000, 4)
    key, secret = store.keys.create(ann.id, " My laptop ", TOMORROW, ["qwen3-rerank", "m2"], limits)
    assert re.fullmatch(r"rk-[A-Za-z0-9_-]{43}", secret)
    assert key.hint == f"{secret[:7]}…{secret[-4:]}"
    assert (key.name, key.expires, key.models, key.limits) == ("My laptop", TOMORROW, ("qwen3-rerank", "m2"), limits)
    assert (key.revoked, key.last_used) == (None, None)
    store.ledger.add_credits(ann.id, 250)
    assert store.keys.find(secret) == Caller(
        account_id=ann.id,
        key_id=key.id,
        key_name="My laptop",
        models=("qwen3-rerank", "m2"),
        key_limits=limits,
        account_limits=CallLimits(1, 2, 3),
        available=250,
        account_created=ann.created,
        key_last_used=None,
    )


def test_finding_a_caller_is_one_query_and_writes_nothing(
    store: Store, ann: Account, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = store.keys.create(ann.id, "a key")
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store.keys.find(secret)
    statements = [message for message in caplog.messages if re.match("[A-Z]+ ", message)]
    assert [message.split()[0] for message in statements if not message.startswith("BEGIN")] == ["SELECT"]


def test_the_query_goes_by_the_index(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
    with store.database.read() as connection:
        plan = connection.execute(text("EXPLAIN QUERY PLAN SELECT * FROM keys WHERE hash = 'x'")).all()
    assert "USING INDEX" in str(plan)
    store.database.close()


@pytest.mark.parametrize("secret", ["", "rk-", "rk-" + "a" * 43, "x" * 100_000, "ключ", "\0"])
def test_other_secrets_let_nobody_in(store: Store, ann: Account, secret: str) -> None:
    store.keys.create(ann.id, "a key")
    assert store.keys.find(secret) is None


def test_an_expired_key_lets_nobody_in(store: Store, ann: Account) -> None:
    key, secret = store.keys.create(ann.id, "a key", TOMORROW)
    assert store.keys.find(secret)
    assert key.is_usable(datetime.now(UTC)) and not key.is_usable(TOMORROW)
    with store.database.transaction() as connection:
        connection.execute(update(schema.keys).values(expires=datetime.now(UTC)))
    assert store.keys.find(secret) is None


def test_a_revoked_key_lets_nobody_in(store: Store, ann: Account) -> None:
    (one, secret), (two, other) = (store.keys.create(ann.id, "a key") for _ in range(2))
    store.keys.revoke(one.id, ann.id)
    (_, revoked) = store.keys.of_account(ann.id)
    assert revoked.revoked is not None and not revoked.is_usable(datetime.now(UTC))
    store.keys.revoke(one.id)
    assert store.keys.of_account(ann.id) == [two, revoked]  # when it was revoked first
    assert store.keys.find(secret) is None
    assert store.keys.find(other)


def test_only_the_owner_revokes_a_key(store: Store, ann: Account) -> None:
    bob = store.accounts.create("bob@example.org")
    key, secret = store.keys.create(ann.id, "a key")
    for key_id, account_id in ((key.id, bob.id), (99, ann.id), (99, None)):
        with pytest.raises(InvalidRequest, match=f"no key {key_id}"):
            store.keys.revoke(key_id, account_id)
    assert store.keys.find(secret)


def test_a_disabled_account_is_let_in_no_more(store: Store, ann: Account) -> None:
    _, secret = store.keys.create(ann.id, "a key")
    store.accounts.disable(ann.id)
    assert store.keys.find(secret) is None
    store.accounts.enable(ann.id)
    assert store.keys.find(secret)


def test_keys_are_listed_newest_first(store: Store, ann: Account) -> None:
    bob = store.accounts.create("bob@example.org")
    first, second = (store.keys.create(ann.id, name)[0] for name in "ab")
    third, _ = store.keys.create(bob.id, "c")
    assert store.keys.of_account(ann.id) == [second, first]
    assert store.keys.all() == [third, second, first]


def test_bad_keys_are_not_made(store: Store, ann: Account) -> None:
    with pytest.raises(InvalidRequest, match="no account 99"):
        store.keys.create(99, "a key")
    for name in ("", "a\nb", "a" * 101):
        with pytest.raises(InvalidRequest, match="name: must have from 1 to 100"):
            store.keys.create(ann.id, name)
    with pytest.raises(InvalidRequest, match="expire immediately"):
        store.keys.create(ann.id, "a key", datetime.now(UTC))
    with pytest.raises(InvalidRequest, match="concurrency: must be from 1"):
        store.keys.create(ann.id, "a key", limits=CallLimits(concurrency=0))
    assert store.keys.all() == []


def test_the_secret_is_in_no_file_and_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        store = open_store(f"sqlite:///{tmp_path / 'a.db'}")
        ann = store.accounts.create("ann@example.org")
        _, secret = store.keys.create(ann.id, "a key")
        assert store.keys.find(secret)
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret[:7].encode() in files and secret[-4:].encode() in files  # the hint
    assert secret[3:].encode() not in files and secret[7:-4].encode() not in files
    assert "INSERT INTO keys" in caplog.text and secret[7:-4] not in caplog.text
    store.database.close()


def test_an_account_has_a_hundred_keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = store.accounts.create("ann@example.org"), store.accounts.create("bob@example.org")
    made = [store.keys.create(ann.id, f"key {number}")[0] for number in range(MAX_KEYS)]
    with pytest.raises(InvalidRequest, match="at most 100 usable keys: revoke one first"):
        store.keys.create(ann.id, "one more")
    store.keys.create(bob.id, "another account's")
    store.keys.revoke(made[0].id)
    store.keys.create(ann.id, "one more")
    monkeypatch.setattr("rerankd.accounts.keys.MAX_LISTED", 100)
    listed = store.keys.of_account(ann.id)
    assert len(listed) == 100 and all(key.revoked is None for key in listed)
    assert [key.id for key in listed] == sorted((key.id for key in listed), reverse=True)
