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

from rerankd.accounts.people import Account, People
from rerankd.accounts.schema import accounts, invites, metadata, sessions
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest
from rerankd.types import CallLimits

PASSWORD = "correct horse battery staple"


@pytest.fixture
def people(store: Store) -> People:
    return store.people


@pytest.fixture
def ann(people: People) -> Account:
    return people.create("Ann@Example.org ", "Ann", PASSWORD)


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


def test_an_account_is_found_whatever_the_case(people: People, ann: Account) -> None:
    assert ann.email == "ann@example.org"
    assert (ann.role, ann.disabled, ann.balance, ann.reserved, ann.limits) == ("user", False, 0, 0, CallLimits())
    assert people.by_email(" ANN@example.ORG") == people.by_id(ann.id) == ann
    assert people.by_email("bob@example.org") is None
    assert people.by_id(ann.id + 1) is None


def test_all_are_sorted_by_address(people: People, ann: Account) -> None:
    zoe, bob = people.create("zoe@example.org"), people.create("bob@example.org", role="admin")
    assert people.all() == [ann, bob, zoe]
    assert (bob.name, bob.role) == ("bob@example.org", "admin")


def test_an_address_has_one_account(people: People, ann: Account) -> None:
    with pytest.raises(InvalidRequest, match=r"ann@example\.org has an account already"):
        people.create("ann@EXAMPLE.org")
    assert people.all() == [ann]


@pytest.mark.parametrize(
    "email", ["", "ann", "@", "a b@c", "a@b@c", "ann@example.org\nx", "a\0@b", f"{'a' * 250}@b.org"]
)
def test_what_is_no_address_is_refused(people: People, email: str) -> None:
    with pytest.raises(InvalidRequest, match="email: not an e-mail address"):
        people.create(email)


@pytest.mark.parametrize("name", ["a\nb", "a" * 201, "a\0b"])
def test_odd_names_are_refused(people: People, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name: must have from 1 to 200 printable characters"):
        people.create("ann@example.org", name)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_odd_passwords_are_refused_and_not_repeated(people: People, ann: Account, password: str) -> None:
    for refused in (
        lambda: people.create("bob@example.org", password=password),
        lambda: people.set_password(ann.id, password),
    ):
        with pytest.raises(InvalidRequest, match="The password must have from 8 to 1024 characters"):
            refused()
    assert people.check_password("ann@example.org", PASSWORD)


def test_only_the_right_password_of_an_enabled_account_is_right(people: People, ann: Account) -> None:
    keys_only = people.create("robot@example.org")
    assert people.check_password("ANN@example.org", PASSWORD) == ann
    assert people.check_password("ann@example.org", PASSWORD + " ") is None
    assert people.check_password("bob@example.org", PASSWORD) is None
    assert people.check_password(keys_only.email, "") is None
    people.set_disabled(ann.id, True)
    assert people.check_password("ann@example.org", PASSWORD) is None
    people.set_disabled(ann.id, False)
    people.set_password(ann.id, "another password")
    assert people.check_password("ann@example.org", PASSWORD) is None
    assert people.check_password("ann@example.org", "another password") == ann


def test_passwords_are_hashed_with_argon2id_and_again_when_its_parameters_change(
    store: Store, people: People, ann: Account
) -> None:
    def stored() -> str:
        with store.database.read() as connection:
            return str(connection.scalar(select(accounts.c.password)))

    current = extract_parameters(stored())
    assert stored().startswith("$argon2id$")
    weak = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    with store.database.transaction() as connection:
        connection.execute(update(accounts).values(password=weak))
    assert people.check_password(ann.email, "wrong password") is None
    assert stored() == weak
    assert people.check_password(ann.email, PASSWORD) == ann
    assert extract_parameters(stored()) == current
    assert people.check_password(ann.email, PASSWORD) == ann


def test_changes_are_kept(people: People, ann: Account) -> None:
    people.set_name(ann.id, "Dr Ann")
    people.set_role(ann.id, "admin")
    people.set_limits(ann.id, CallLimits(60, None, 3))
    changed = people.by_id(ann.id)
    assert changed is not None
    assert (changed.name, changed.role, changed.limits) == ("Dr Ann", "admin", CallLimits(60, None, 3))


@pytest.mark.parametrize("limits", [CallLimits(0), CallLimits(None, -1), CallLimits(concurrency=2**31)])
def test_odd_limits_are_refused(people: People, ann: Account, limits: CallLimits) -> None:
    with pytest.raises(InvalidRequest, match="must be from 1 to"):
        people.set_limits(ann.id, limits)


@pytest.mark.parametrize(
    "change",
    [
        lambda people: people.set_name(7, "x"),
        lambda people: people.set_disabled(7, True),
        lambda people: people.set_password(7, PASSWORD),
    ],
)
def test_an_account_that_is_not_there_cannot_be_changed(people: People, change: Callable[[People], Any]) -> None:
    with pytest.raises(InvalidRequest, match="no account 7"):
        change(people)


def test_a_session_is_known_by_its_token_until_it_is_closed(people: People, ann: Account) -> None:
    first, second = people.open_session(ann.id), people.open_session(ann.id)
    assert first != second
    known, other = people.session(first), people.session(second)
    assert known is not None and other is not None
    assert known.account == ann
    assert len(known.csrf) >= 32 and known.csrf != other.csrf
    assert people.session(first) == known
    assert people.session("nonsense") is None
    people.close_session(first)
    assert people.session(first) is None
    assert people.session(second) == other


def test_a_session_ends_after_two_weeks(store: Store, people: People, ann: Account) -> None:
    token = people.open_session(ann.id)
    expire(store, sessions)
    assert people.session(token) is None
    people.open_session(ann.id)
    with store.database.read() as connection:
        assert len(connection.execute(select(sessions)).all()) == 1  # those that ended are not kept


@pytest.mark.parametrize(
    "change",
    [
        lambda people, account: people.close_all(account.id),
        lambda people, account: people.set_password(account.id, "another password"),
        lambda people, account: people.set_disabled(account.id, True),
    ],
)
def test_what_signs_an_account_out_everywhere(
    people: People, ann: Account, change: Callable[[People, Account], None]
) -> None:
    bob = people.create("bob@example.org")
    tokens = [people.open_session(ann.id) for _ in range(2)]
    others = people.open_session(bob.id)
    change(people, ann)
    assert [people.session(token) for token in tokens] == [None, None]
    assert people.session(others)


@pytest.fixture
def admin(people: People) -> Account:
    return people.create("admin@example.org", "Ada", role="admin")


@pytest.mark.parametrize(
    "take_away",
    [
        lambda people, account: people.set_disabled(account.id, True),
        lambda people, account: people.set_role(account.id, "user"),
    ],
)
def test_one_administrator_always_stays(
    people: People, admin: Account, take_away: Callable[[People, Account], None]
) -> None:
    off = people.create("off@example.org", role="admin")
    people.set_disabled(off.id, True)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="the only administrator"):
            take_away(people, admin)
    second = people.create("second@example.org", role="admin")
    results: list[object] = []

    def take(account: Account) -> None:
        try:
            results.append(take_away(people, account))
        except InvalidRequest as error:
            results.append(str(error))

    threads = [threading.Thread(target=take, args=(account,)) for account in (admin, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2 and results.count(None) == 1, "each takes the other's place away"


def test_an_invitation_makes_one_account(people: People, admin: Account) -> None:
    token = people.create_invite(admin.id)
    invite = people.invite(token)
    assert invite is not None and (invite.email, invite.created_by) == (None, admin.id)
    bob = people.use_invite(token, "bob@example.org", "Bob", PASSWORD)
    assert people.check_password("bob@example.org", PASSWORD) == bob
    assert people.invite(token) is None
    for used in (token, "nonsense"):
        with pytest.raises(InvalidRequest, match="not valid"):
            people.use_invite(used, "eve@example.org", "Eve", PASSWORD)


def test_an_invitation_for_somebody_is_for_nobody_else(people: People, admin: Account) -> None:
    token = people.create_invite(admin.id, "Bob@example.org")
    with pytest.raises(InvalidRequest, match="for another e-mail address"):
        people.use_invite(token, "eve@example.org", "Eve", PASSWORD)
    assert people.use_invite(token, "BOB@example.org", "Bob", PASSWORD).email == "bob@example.org"
    with pytest.raises(InvalidRequest, match="has an account already"):
        people.create_invite(admin.id, "bob@example.org")


def test_an_invitation_survives_a_mistake(people: People, admin: Account) -> None:
    token = people.create_invite(admin.id)
    with pytest.raises(InvalidRequest, match="has an account already"):
        people.use_invite(token, "admin@example.org", "Ann", PASSWORD)
    with pytest.raises(InvalidRequest, match="password"):
        people.use_invite(token, "bob@example.org", "Bob", "short")
    assert people.use_invite(token, "bob@example.org", "Bob", PASSWORD)


def test_an_invitation_ends(store: Store, people: People, admin: Account) -> None:
    token = people.create_invite(admin.id)
    expire(store, invites)
    assert people.invite(token) is None
    with pytest.raises(InvalidRequest, match="not valid"):
        people.use_invite(token, "bob@example.org", "Bob", PASSWORD)


def test_an_invitation_used_by_several_at_once_makes_one_account(people: People, admin: Account) -> None:
    token, made = people.create_invite(admin.id), []
    start = threading.Barrier(4)

    def use(number: int) -> None:
        start.wait()
        try:
            made.append(people.use_invite(token, f"bob{number}@example.org", "Bob", PASSWORD))
        except InvalidRequest as error:
            assert "not valid" in str(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(people.all()) == 2


def test_no_secret_is_stored_or_logged(
    store: Store, people: People, ann: Account, caplog: pytest.LogCaptureFixture
) -> None:
    store.database.close()  # a connection decides when it is opened whether it logs
    with caplog.at_level(logging.DEBUG, "sqlalchemy"):
        people.set_password(ann.id, "another password")
        people.check_password(ann.email, "another password")
        secrets = [people.open_session(ann.id), people.create_invite(ann.id), PASSWORD, "another password"]
        people.session(secrets[0])
        people.invite(secrets[1])
        stored = everything(store)
    assert "INSERT INTO sessions" in caplog.text  # what is run is logged
    assert [secret for secret in secrets if secret in caplog.text or secret in stored] == []
    assert ann.email in stored
