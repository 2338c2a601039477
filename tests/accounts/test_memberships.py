"""People of several accounts: joining, switching, leaving, and what the end of an account means; on both databases."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from rerankd.accounts import schema
from rerankd.accounts.accounts import Account, new_account
from rerankd.accounts.deletion import delete_account
from rerankd.accounts.members import add_member
from rerankd.accounts.memberships import MAX_JOINED, MAX_MEMBERS, Right
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest, Unauthorized

PASSWORD = "correct horse battery"


@pytest.fixture
def ann(store: Store) -> Account:
    """The owner of an account."""
    return store.accounts.create("ann@example.org", "", PASSWORD)


@pytest.fixture
def carl(store: Store) -> Account:
    """The owner of another account."""
    return store.accounts.create("carl@example.org", "Carl", PASSWORD)


def join(store: Store, team: Account, person: Account, role: Right = "member") -> None:
    store.members.add_existing(team.id, person.id, role)


def member(store: Store, team: Account, name: str, role: Right = "member") -> Account:
    """A new member without a password, who has no other account."""
    with store.database.transaction() as connection:
        return add_member(connection, team.id, new_account(f"{name}@example.org", "", None), role, "operator")


def session(store: Store, token: str) -> Any:
    found = store.sessions.find(token)
    assert found is not None
    return found


def in_account(store: Store, person: Account, team: Account) -> str:
    """The token of a session of this person, who acts in this account."""
    token = store.sessions.open(person.id)
    store.sessions.choose(token, team.id)
    return token


def roles(store: Store, team: Account) -> dict[str, str]:
    return {one.email.partition("@")[0]: one.role for one in store.members.of(team.id)}


def places(store: Store, person: Account) -> dict[str, str]:
    return {one.email.partition("@")[0]: one.role for one in store.members.accounts_of(person.id)}


def test_a_person_joins_another_account_and_switches(store: Store, ann: Account, carl: Account) -> None:
    invite = store.invites.create_for_member(ann.id, ann.id, "viewer", "Carl@example.org")
    token, other = store.sessions.open(carl.id), store.sessions.open(carl.id)
    assert store.invites.accept(invite, carl.id) == ann.id
    assert places(store, carl) == {"carl": "owner", "ann": "viewer"}
    assert roles(store, ann) == {"ann": "owner", "carl": "viewer"} and roles(store, carl) == {"carl": "owner"}
    own = session(store, token)
    assert (own.payer.id, own.role, own.has_members, own.actor) == (carl.id, "owner", False, "owner")
    store.sessions.choose(token, ann.id)
    there = session(store, token)
    assert (there.account.id, there.payer.id, there.role) == (carl.id, ann.id, "viewer")
    assert (there.has_members, there.actor) == (True, carl.id) and not there.may("member")
    assert [one.account_id for one in there.memberships] == [carl.id, ann.id]
    assert session(store, other).payer.id == carl.id, "each session remembers its own"
    assert len({own.csrf, there.csrf, session(store, other).csrf}) == 3, "a form belongs to the account of its page"
    store.sessions.choose(token, carl.id)
    assert session(store, token).csrf == own.csrf
    for foreign in (99, store.accounts.create("eve@example.org").id):
        with pytest.raises(InvalidRequest, match="no member of this account"):
            store.sessions.choose(token, foreign)
    with pytest.raises(InvalidRequest, match="no member"):
        store.sessions.choose("no session", ann.id)


def test_the_chosen_account_pays_for_the_playground(store: Store, ann: Account, carl: Account) -> None:
    join(store, ann, carl, "member")
    token = in_account(store, carl, ann)
    csrf = session(store, token).csrf
    called = store.session_caller(token, csrf)
    assert called and called.account_id == ann.id
    store.sessions.choose(token, carl.id)
    assert store.session_caller(token, csrf) is None, "a page of the other account does not spend this one's credit"
    called = store.session_caller(token, session(store, token).csrf)
    assert called and called.account_id == carl.id
    store.members.set_role(ann.id, carl.id, "viewer")
    store.sessions.choose(token, ann.id)
    with pytest.raises(Unauthorized, match="Your role in this account is viewer"):
        store.session_caller(token, session(store, token).csrf)


def test_what_is_not_accepted(store: Store, ann: Account, carl: Account) -> None:
    def invited(**changes: Any) -> str:
        token = store.invites.create_for_member(ann.id, ann.id, "member", changes.pop("email", None))
        if changes:
            with store.database.transaction() as connection:
                connection.execute(update(schema.invites).values(changes))
        return token

    with pytest.raises(InvalidRequest, match="another e-mail address"):
        store.invites.accept(invited(email="eve@example.org"), carl.id)
    root = store.accounts.create("root@example.org", "", PASSWORD, "admin")
    withdrawn = invited()
    for one in store.invites.open_of(ann.id):
        store.invites.withdraw(ann.id, one.number, ann.id)
    for invalid in ("guess", "", invited(expires=datetime.now(UTC)), withdrawn, store.invites.create(root.id)):
        with pytest.raises(InvalidRequest, match="not valid, or has expired"):
            store.invites.accept(invalid, carl.id)
    used, again = invited(), invited()
    store.invites.accept(used, carl.id)
    with pytest.raises(InvalidRequest, match="not valid, or has expired"):
        store.invites.accept(used, root.id)
    for already in (carl, ann):
        with pytest.raises(InvalidRequest, match="a member of this account already"):
            store.invites.accept(again, already.id)
    store.accounts.disable(carl.id)
    store.members.remove(ann.id, carl.id)
    with pytest.raises(InvalidRequest, match="disabled"):
        store.invites.accept(again, carl.id)
    assert roles(store, ann) == {"ann": "owner"} and store.invites.find(again), "a refusal uses nothing up"


def test_an_invitation_is_used_once_however_many_try(store: Store, ann: Account) -> None:
    people = [store.accounts.create(f"p{number}@example.org") for number in range(4)]
    invite, start = store.invites.create_for_member(ann.id, ann.id, "member"), threading.Barrier(4)

    def accept(person: Account) -> bool:
        start.wait()
        try:
            store.invites.accept(invite, person.id)
        except InvalidRequest:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(accept, people)) == [False, False, False, True]
    assert len(store.members.of(ann.id)) == 2


def test_who_joined_as_owner_manages_the_account_and_may_be_the_last(store: Store, ann: Account, carl: Account) -> None:
    join(store, ann, carl, "owner")
    invite = store.invites.create_for_member(carl.id, ann.id, "viewer")
    assert store.invites.find(invite) and store.members.owners(ann.id) == ["ann@example.org", "carl@example.org"]
    store.members.set_role(ann.id, ann.id, "viewer", carl.id)
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.remove(ann.id, carl.id, carl.id)
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.set_role(ann.id, carl.id, "member")
    with pytest.raises(InvalidRequest, match="only owner"):
        delete_account(store.database, carl.id, "owner")
    store.members.set_role(ann.id, ann.id, "owner", carl.id)
    store.members.set_role(ann.id, carl.id, "member", ann.id)
    assert store.invites.find(invite) is None, "its author is no owner any more"
    assert roles(store, ann) == {"ann": "owner", "carl": "member"}


def test_leaving_ends_the_sessions_there_and_no_others(store: Store, ann: Account, carl: Account) -> None:
    join(store, ann, carl)
    here, there = store.sessions.open(carl.id), in_account(store, carl, ann)
    _, secret = store.keys.create(ann.id, "of carl", by=carl.id)
    store.members.remove(ann.id, carl.id, carl.id)
    assert store.sessions.find(there) is None and session(store, here).payer.id == carl.id
    assert places(store, carl) == {"carl": "owner"} and store.keys.find(secret)
    assert store.accounts.check_password("carl@example.org", PASSWORD)
    with pytest.raises(InvalidRequest, match="no member"):
        store.sessions.choose(here, ann.id)
    with pytest.raises(InvalidRequest, match="no such member"):
        store.members.remove(ann.id, carl.id)
    done = [(one.by, one.action) for one in store.admin_log.of_members(ann.id, 9)]
    assert done[0] == ("carl@example.org", "member left"), "the log says it although the person is gone"
    join(store, ann, carl, "viewer")  # again
    assert places(store, carl) == {"carl": "owner", "ann": "viewer"}


def test_the_first_owner_leaves_and_goes_on_in_another_account(store: Store, ann: Account, carl: Account) -> None:
    join(store, carl, ann, "viewer")
    join(store, ann, carl, "owner")
    store.members.remove(ann.id, ann.id, carl.id)
    assert store.accounts.check_password("ann@example.org", PASSWORD) and places(store, ann) == {"carl": "viewer"}
    token = store.sessions.open(ann.id)
    assert (session(store, token).payer.id, session(store, token).role) == (carl.id, "viewer")
    with pytest.raises(InvalidRequest, match="no member"):
        store.sessions.choose(token, ann.id)
    join(store, ann, ann, "member")  # back again, by invitation
    assert places(store, ann) == {"ann": "member", "carl": "viewer"}
    store.members.remove(ann.id, ann.id)
    store.members.remove(carl.id, ann.id)
    assert store.sessions.find(token) is None and store.accounts.check_password("ann@example.org", PASSWORD) is None
    assert roles(store, ann) == {"carl": "owner"}
    left = store.accounts.by_id(ann.id)
    assert left and left.email == "ann@example.org" and not left.disabled, "the account goes on"


def test_a_member_without_an_own_account_goes_on_in_another_one(store: Store, ann: Account, carl: Account) -> None:
    bob = store.members.add(ann.id, "bob@example.org", "", PASSWORD, "member")
    join(store, carl, bob, "viewer")
    store.members.remove(ann.id, bob.id, ann.id)
    assert store.accounts.check_password("bob@example.org", PASSWORD)
    assert session(store, store.sessions.open(bob.id)).payer.id == carl.id
    assert store.links.set_password(store.links.for_password(bob.id), "another password").id == bob.id
    store.members.remove(carl.id, bob.id)
    assert store.accounts.check_password("bob@example.org", "another password") is None
    assert store.accounts.create("bob@example.org").id != bob.id, "the address is free"


def test_a_disabled_account_keeps_only_itself_closed(store: Store, ann: Account, carl: Account) -> None:
    bob = store.members.add(ann.id, "bob@example.org", "", PASSWORD, "member")
    join(store, ann, carl)
    join(store, carl, bob)
    here, there = store.sessions.open(carl.id), in_account(store, carl, ann)
    store.accounts.disable(ann.id)
    assert store.sessions.find(there) is None and session(store, here).payer.id == carl.id
    assert [one.account_id for one in session(store, here).memberships] == [carl.id]
    assert store.accounts.check_password("ann@example.org", PASSWORD) is None
    assert store.accounts.check_password("bob@example.org", PASSWORD)
    assert session(store, store.sessions.open(bob.id)).payer.id == carl.id
    store.accounts.enable(ann.id)
    assert places(store, carl) == {"carl": "owner", "ann": "member"}
    assert places(store, bob) == {"ann": "member", "carl": "member"}


def test_a_deleted_account_takes_nobody_with_it_who_has_another(store: Store, ann: Account, carl: Account) -> None:
    bob, eve = member(store, ann, "bob"), member(store, ann, "eve")
    dan = store.accounts.create("dan@example.org", "", PASSWORD)
    for team, person, role in (
        (ann, carl, "member"),
        (carl, bob, "member"),
        (ann, dan, "member"),
        (dan, carl, "owner"),
    ):
        store.members.add_existing(team.id, person.id, role)  # type: ignore[arg-type]
    store.members.remove(dan.id, dan.id)  # dan acts in the account of ann only
    tokens = [in_account(store, carl, ann), store.sessions.open(dan.id)]
    delete_account(store.database, ann.id, "owner")
    assert [store.sessions.find(token) for token in tokens] == [None, None]
    assert places(store, carl) == {"carl": "owner", "dan": "owner"} and places(store, bob) == {"carl": "member"}
    assert store.accounts.by_email("eve@example.org") is None and store.accounts.by_email("bob@example.org")
    gone = store.accounts.by_id(eve.id)
    assert gone and gone.is_deleted
    assert store.accounts.check_password("dan@example.org", PASSWORD) is None
    account_of_dan = store.accounts.by_id(dan.id)
    assert account_of_dan and not account_of_dan.is_deleted, "others act in it"
    with pytest.raises(InvalidRequest, match="can have members"):
        join(store, ann, carl)
    assert store.members.of(ann.id) == []


def test_a_deleted_person_leaves_every_account(store: Store, ann: Account, carl: Account) -> None:
    join(store, ann, carl, "owner")
    delete_account(store.database, carl.id, "owner")
    assert roles(store, ann) == {"ann": "owner"}
    with pytest.raises(InvalidRequest, match="disabled, or there is no such account"):
        join(store, ann, carl)


def test_two_owners_of_different_kinds_cannot_remove_each_other_at_once(store: Store) -> None:
    start = threading.Barrier(2)
    for number in range(5):
        ann, carl = (store.accounts.create(f"{name}{number}@example.org") for name in ("ann", "carl"))
        join(store, ann, carl, "owner")

        def remove(one: tuple[int, int], account_id: int = ann.id) -> bool:
            start.wait()
            try:
                store.members.remove(account_id, one[0], one[1])
            except InvalidRequest:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            done = list(threads.map(remove, ((ann.id, carl.id), (carl.id, ann.id))))
        assert sorted(done) == [False, True] and len(store.members.of(ann.id)) == 1


def test_memberships_are_bounded(store: Store, ann: Account, carl: Account) -> None:
    now = datetime.now(UTC)
    with store.database.transaction() as connection:
        row = {"name": "n", "role": "user", "created": now}
        rows = [{**row, "email": f"m{number}@example.org"} for number in range(MAX_MEMBERS)]
        connection.execute(schema.accounts.insert(), rows)
        found = connection.scalars(select(schema.accounts.c.id).where(schema.accounts.c.name == "n")).all()
        joined = {"role": "viewer", "joined": now}
        connection.execute(
            schema.memberships.insert(),
            [{**joined, "account_id": one, "person_id": carl.id} for one in found[:MAX_JOINED]],
        )
        connection.execute(
            schema.memberships.insert(), [{**joined, "account_id": ann.id, "person_id": one} for one in found[1:]]
        )
    with pytest.raises(InvalidRequest, match="at most 100 members"):
        join(store, ann, carl)
    store.members.remove(ann.id, found[-1])
    with pytest.raises(InvalidRequest, match="at most 30 accounts"):
        join(store, ann, carl)
    store.members.remove(found[0], carl.id)
    join(store, ann, carl)


def test_an_administrator_of_the_server_may_join_and_leave(store: Store, ann: Account) -> None:
    root = store.accounts.create("root@example.org", "", PASSWORD, "admin")
    join(store, ann, root, "viewer")
    assert session(store, in_account(store, root, ann)).account.role == "admin"
    store.members.remove(ann.id, root.id, ann.id)
    assert places(store, root) == {"root": "owner"}


STEPS = st.tuples(
    st.sampled_from(["join", "join", "join", "role", "role", "remove", "remove", "disable", "enable", "delete"]),
    st.integers(0, 2),
    st.integers(0, 4),
    st.sampled_from(["viewer", "owner"]),
)
NUMBERS = itertools.count()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=20))
def test_after_any_sequence_each_account_has_an_owner_and_the_lists_agree(store: Store, steps: list[Any]) -> None:
    """Accounts 0 to 2, and people 0 to 4: the owners of these, and members whom the first two accounts made."""
    name = f"x{next(NUMBERS)}"
    teams = [store.accounts.create(f"{name}-{number}@example.org") for number in range(3)]
    people = [*teams, member(store, teams[0], f"{name}-3", "owner"), member(store, teams[1], f"{name}-4", "viewer")]
    for what, at, who, role in steps:
        team, person = teams[at], people[who]
        with suppress(InvalidRequest):
            match what:
                case "join":
                    store.members.add_existing(team.id, person.id, role)
                case "role":
                    store.members.set_role(team.id, person.id, role)
                case "remove":
                    store.members.remove(team.id, person.id)
                case "disable":
                    store.accounts.disable(person.id)
                case "enable":
                    store.accounts.enable(person.id)
                case "delete":
                    delete_account(store.database, person.id)
    for team in teams:
        now = store.accounts.by_id(team.id)
        assert now
        found = store.members.of(team.id)
        assert (found == []) if now.is_deleted else ("owner" in [one.role for one in found])
        for one in found:
            mine = {place.account_id: place.role for place in store.members.accounts_of(one.id)}
            assert now.disabled or mine[team.id] == one.role
    for person in people:
        mine = {place.account_id: place.role for place in store.members.accounts_of(person.id)}
        assert all(person.id in [one.id for one in store.members.of(team)] for team in mine)
        row = store.accounts.by_id(person.id)
        assert row and store.accounts.may_sign_in(person.id) == (bool(mine) and not row.disabled)
        opened = store.sessions.find(store.sessions.open(person.id))
        assert (opened is not None) == store.accounts.may_sign_in(person.id)
