"""Accounts, passwords, sign-ins and invitations."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from sqlalchemy import Table, select, update

from rerankd.accounts.accounts import Account
from rerankd.accounts.schema import accounts, invites, metadata, sessions
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits

PASSWORD = "correct horse battery staple"


@pytest.fixture
def ann(store: Store) -> Account:
    return store.accounts.create("Ann@Example.org ", "Ann", PASSWORD)


def expire(store: Store, table: Table) -> None:
    """The two weeks of each of its rows are over."""
    now = datetime.now(UTC)
    with store.database.transaction() as connection:
        until = connection.scalars(select(table.c.expires)).all()
        assert all(timedelta(days=13.9) < moment - now <= timedelta(days=14) for moment in until)
        connection.execute(update(table).values(expires=now))


def everything(store: Store) -> str:
    """Every value in the database, as text."""
    with store.database.read() as connection:
        return "\n".join(str(row) for table in metadata.sorted_tables for row in connection.execute(select(table)))


def test_an_account_is_found_whatever_the_case(store: Store, ann: Account) -> None:
    assert ann.email == "ann@example.org"
    assert (ann.role, ann.disabled, ann.balance, ann.reserved, ann.limits) == ("user", False, 0, 0, CallLimits())
    assert store.accounts.by_email(" ANN@example.ORG") == store.accounts.by_id(ann.id) == ann
    assert store.accounts.by_email("bob@example.org") is None
    assert store.accounts.by_id(ann.id + 1) is None


def test_all_are_sorted_by_address(store: Store, ann: Account) -> None:
    zoe, bob = store.accounts.create("zoe@example.org"), store.accounts.create("bob@example.org", role="admin")
    assert store.accounts.all() == [ann, bob, zoe]
    assert (bob.name, bob.role) == ("bob@example.org", "admin")


def test_an_address_has_one_account(store: Store, ann: Account) -> None:
    with pytest.raises(InvalidRequest, match=r"ann@example\.org has an account already"):
        store.accounts.create("ann@EXAMPLE.org")
    assert store.accounts.all() == [ann]


@pytest.mark.parametrize(
    "email", ["", "ann", "@", "a b@c", "a@b@c", "ann@example.org\nx", "a\0@b", f"{'a' * 250}@b.org"]
)
def test_what_is_no_address_is_refused(store: Store, email: str) -> None:
    with pytest.raises(InvalidRequest, match="email: not an e-mail address"):
        store.accounts.create(email)


@pytest.mark.parametrize("name", ["a\nb", "a" * 201, "a\0b"])
def test_odd_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name: must have from 1 to 200 printable characters"):
        store.accounts.create("ann@example.org", name)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_odd_passwords_are_refused_and_not_repeated(store: Store, ann: Account, password: str) -> None:
    for refused in (
        lambda: store.accounts.create("bob@example.org", password=password),
        lambda: store.accounts.set_password(ann.id, password),
    ):
        with pytest.raises(InvalidRequest, match="The password must have from 8 to 1024 characters"):
            refused()
    assert store.accounts.check_password("ann@example.org", PASSWORD)


def test_only_the_right_password_of_an_enabled_account_is_right(store: Store, ann: Account) -> None:
    keys_only = store.accounts.create("robot@example.org")
    assert store.accounts.check_password("ANN@example.org", PASSWORD) == ann
    assert store.accounts.check_password("ann@example.org", PASSWORD + " ") is None
    assert store.accounts.check_password("bob@example.org", PASSWORD) is None
    assert store.accounts.check_password(keys_only.email, "") is None
    store.accounts.disable(ann.id)
    assert store.accounts.check_password("ann@example.org", PASSWORD) is None
    store.accounts.enable(ann.id)
    store.accounts.set_password(ann.id, "another password")
    assert store.accounts.check_password("ann@example.org", PASSWORD) is None
    assert store.accounts.check_password("ann@example.org", "another password") == ann


def test_passwords_are_hashed_with_argon2id_and_again_when_its_parameters_change(store: Store, ann: Account) -> None:
    def stored() -> str:
        with store.database.read() as connection:
            return str(connection.scalar(select(accounts.c.password)))

    current = extract_parameters(stored())
    assert stored().startswith("$argon2id$")
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    with store.database.transaction() as connection:
        connection.execute(update(accounts).values(password=weak))
    assert store.accounts.check_password(ann.email, "wrong password") is None
    assert stored() == weak
    assert store.accounts.check_password(ann.email, PASSWORD) == ann
    assert extract_parameters(stored()) == current
    assert store.accounts.check_password(ann.email, PASSWORD) == ann


def test_changes_are_kept(store: Store, ann: Account) -> None:
    store.accounts.set_role(ann.id, "admin")
    store.accounts.set_limits(ann.id, CallLimits(60, None, 3))
    changed = store.accounts.by_id(ann.id)
    assert changed is not None
    assert (changed.role, changed.limits) == ("admin", CallLimits(60, None, 3))


@pytest.mark.parametrize("limits", [CallLimits(0), CallLimits(None, -1), CallLimits(concurrency=2**31)])
def test_odd_limits_are_refused(store: Store, ann: Account, limits: CallLimits) -> None:
    with pytest.raises(InvalidRequest, match="must be from 1 to"):
        store.accounts.set_limits(ann.id, limits)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.accounts.set_limits(7, CallLimits(1)),
        lambda store: store.accounts.disable(7),
        lambda store: store.accounts.set_password(7, PASSWORD),
    ],
)
def test_an_account_that_is_not_there_cannot_be_changed(store: Store, change: Callable[[Store], Any]) -> None:
    with pytest.raises(InvalidRequest, match="no account 7"):
        change(store)


def test_a_session_is_known_by_its_token_until_it_is_closed(store: Store, ann: Account) -> None:
    first, second = store.sessions.open(ann.id), store.sessions.open(ann.id)
    assert first != second
    known, other = store.sessions.find(first), store.sessions.find(second)
    assert known is not None and other is not None
    assert known.account == ann
    assert len(known.csrf) >= 32 and known.csrf != other.csrf
    assert store.sessions.find(first) == known
    assert store.sessions.find("nonsense") is None
    store.sessions.close(first)
    assert store.sessions.find(first) is None
    assert store.sessions.find(second) == other


def test_a_session_ends_after_two_weeks(store: Store, ann: Account) -> None:
    token = store.sessions.open(ann.id)
    expire(store, sessions)
    assert store.sessions.find(token) is None
    store.sessions.open(ann.id)
    with store.database.read() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1  # those that ended are not kept


@pytest.mark.parametrize(
    "change",
    [
        lambda store, account: store.accounts.set_password(account.id, "another password"),
        lambda store, account: store.accounts.disable(account.id),
    ],
)
def test_what_signs_an_account_out_everywhere(
    store: Store, ann: Account, change: Callable[[Store, Account], None]
) -> None:
    bob = store.accounts.create("bob@example.org")
    tokens = [store.sessions.open(ann.id) for _ in range(2)]
    others = store.sessions.open(bob.id)
    change(store, ann)
    assert [store.sessions.find(token) for token in tokens] == [None, None]
    assert store.sessions.find(others)


@pytest.fixture
def admin(store: Store) -> Account:
    return store.accounts.create("admin@example.org", "Ada", role="admin")


@pytest.mark.parametrize(
    "take_away",
    [
        lambda store, account: store.accounts.disable(account.id),
        lambda store, account: store.accounts.set_role(account.id, "user"),
    ],
)
def test_one_administrator_always_stays(
    store: Store, admin: Account, take_away: Callable[[Store, Account], None]
) -> None:
    off = store.accounts.create("off@example.org", role="admin")
    store.accounts.disable(off.id)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="the only administrator"):
            take_away(store, admin)
    second = store.accounts.create("second@example.org", role="admin")
    results: list[object] = []

    def take(account: Account) -> None:
        try:
            take_away(store, account)
            results.append(None)
        except InvalidRequest as error:
            results.append(str(error))

    threads = [threading.Thread(target=take, args=(account,)) for account in (admin, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results.count(None) == 1, "each takes the other's place away"


def test_an_invitation_makes_one_account(store: Store, admin: Account) -> None:
    token = store.invites.create(admin.id)
    invite = store.invites.find(token)
    assert invite is not None and (invite.email, invite.created_by) == (None, admin.id)
    bob = store.invites.use(token, "bob@example.org", "Bob", PASSWORD)
    assert store.accounts.check_password("bob@example.org", PASSWORD) == bob
    assert store.invites.find(token) is None
    for used in (token, "nonsense"):
        with pytest.raises(InvalidRequest, match="not valid"):
            store.invites.use(used, "eve@example.org", "Eve", PASSWORD)


def test_an_invitation_for_somebody_is_for_nobody_else(store: Store, admin: Account) -> None:
    token = store.invites.create(admin.id, "Bob@example.org")
    with pytest.raises(InvalidRequest, match="for another e-mail address"):
        store.invites.use(token, "eve@example.org", "Eve", PASSWORD)
    assert store.invites.use(token, "BOB@example.org", "Bob", PASSWORD).email == "bob@example.org"
    with pytest.raises(InvalidRequest, match="has an account already"):
        store.invites.create(admin.id, "bob@example.org")


def test_an_invitation_survives_a_mistake(store: Store, admin: Account) -> None:
    token = store.invites.create(admin.id)
    with pytest.raises(InvalidRequest, match="has an account already"):
        store.invites.use(token, "admin@example.org", "Ann", PASSWORD)
    with pytest.raises(InvalidRequest, match="password"):
        store.invites.use(token, "bob@example.org", "Bob", "short")
    assert store.invites.use(token, "bob@example.org", "Bob", PASSWORD)


def test_an_invitation_ends(store: Store, admin: Account) -> None:
    token = store.invites.create(admin.id)
    expire(store, invites)
    assert store.invites.find(token) is None
    with pytest.raises(InvalidRequest, match="not valid"):
        store.invites.use(token, "bob@example.org", "Bob", PASSWORD)


def test_an_invitation_used_by_several_at_once_makes_one_account(store: Store, admin: Account) -> None:
    token, made = store.invites.create(admin.id), []
    start = threading.Barrier(4)

    def use(number: int) -> None:
        start.wait()
        try:
            made.append(store.invites.use(token, f"bob{number}@example.org", "Bob", PASSWORD))
        except InvalidRequest as error:
            assert "not valid" in str(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(store.accounts.all()) == 2


def test_no_secret_is_stored_or_logged(store: Store, ann: Account, caplog: pytest.LogCaptureFixture) -> None:
    store.database.close()  # a connection decides when it is opened whether it logs
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        store.accounts.set_password(ann.id, "another password")
        store.accounts.check_password(ann.email, "another password")
        secrets = [store.sessions.open(ann.id), store.invites.create(ann.id), PASSWORD, "another password"]
        store.sessions.find(secrets[0])
        store.invites.find(secrets[1])
        stored = everything(store)
    assert "INSERT INTO sessions" in caplog.text  # what is run is logged
    assert [secret for secret in secrets if secret in caplog.text or secret in stored] == []
    assert ann.email in stored
