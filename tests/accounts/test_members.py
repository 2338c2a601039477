"""Members of an account: who may sign in, what each role may, and that one owner always stays; on both databases."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import update

from rerankd.accounts import schema
from rerankd.accounts.accounts import Account
from rerankd.accounts.directory import list_accounts
from rerankd.accounts.invites import MAX_OPEN
from rerankd.accounts.memberships import MAX_MEMBERS, Right
from rerankd.accounts.second_factor import code_of, new_secret
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest, Unauthorized
from rerankd.mail import Mailer
from rerankd.prices import PriceFile
from rerankd.server.credit_mails import CreditMails
from support.smtp import smtp_server

PASSWORD = "correct horse battery"


@pytest.fixture
def ann(store: Store) -> Account:
    """The owner of an account."""
    return store.accounts.create("ann@example.org", "", PASSWORD)


def add(store: Store, ann: Account, name: str = "bob", role: Right = "member") -> Account:
    return store.members.add(ann.id, f"{name}@example.org", name, PASSWORD, role)


def session(store: Store, account: Account) -> Any:
    found = store.sessions.find(store.sessions.open(account.id))
    assert found is not None
    return found


def roles(store: Store, ann: Account) -> dict[str, str]:
    return {one.email.partition("@")[0]: one.role for one in store.members.of(ann.id)}


def test_an_account_of_one_person_is_as_ever(store: Store, ann: Account) -> None:
    alone = session(store, ann)
    assert alone.account == alone.payer == store.accounts.by_id(ann.id)
    assert (alone.has_members, alone.actor) == (False, "owner") and alone.may("owner")
    assert roles(store, ann) == {"ann": "owner"} and store.members.owners(ann.id) == ["ann@example.org"]
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.remove(ann.id, ann.id)
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.set_role(ann.id, ann.id, "viewer")


def test_a_member_signs_in_alone_and_shares_the_account(store: Store, ann: Account) -> None:
    bob = add(store, ann)
    signed_in = store.accounts.check_password("Bob@example.org", PASSWORD)
    assert signed_in == bob and signed_in is not None
    found = session(store, bob)
    assert (found.account.id, found.payer.id, found.has_members, found.actor) == (bob.id, ann.id, True, bob.id)
    assert [found.may(right) for right in ("viewer", "member", "owner")] == [True, True, False]
    assert session(store, ann).actor == ann.id
    secret = new_secret()
    store.second_factors.turn_on(bob.id, secret, code_of(secret, int(datetime.now(UTC).timestamp()) // 30))
    assert store.second_factors.check(ann.id, "") and not store.second_factors.check(bob.id, "")
    token = store.links.for_password(bob.id, by="owner")
    assert store.links.set_password(token, "another password").id == bob.id
    assert store.accounts.check_password("ann@example.org", PASSWORD)


def test_the_account_pays_for_the_playground_and_a_viewer_spends_nothing(store: Store, ann: Account) -> None:
    bob, eve = add(store, ann), add(store, ann, "eve", "viewer")
    tokens = {one.id: store.sessions.open(one.id) for one in (ann, bob, eve)}

    def caller(one: Account) -> Any:
        found = store.sessions.find(tokens[one.id])
        assert found
        return store.session_caller(tokens[one.id], found.csrf)

    assert caller(ann).account_id == caller(bob).account_id == ann.id and caller(ann).key_id == caller(bob).key_id
    with pytest.raises(Unauthorized, match="Your role in this account is viewer"):
        caller(eve)
    with pytest.raises(InvalidRequest, match="member of another account, which pays"):
        store.keys.create(bob.id, "k")
    with pytest.raises(InvalidRequest, match="member of another account, which pays"):
        store.ledger.add_credits(bob.id, 5)
    with pytest.raises(InvalidRequest, match="cannot be an administrator"):
        store.accounts.set_role(bob.id, "admin")
    with pytest.raises(InvalidRequest, match="can have members"):
        store.members.add(bob.id, "x@example.org", "", PASSWORD, "viewer")


def test_a_removed_member_is_out_at_once_and_the_keys_stay(store: Store, ann: Account) -> None:
    bob = add(store, ann)
    key, secret = store.keys.create(ann.id, "of bob", by=bob.id)
    token, link = store.sessions.open(bob.id), store.links.for_password(bob.id, by="owner")
    store.members.set_role(ann.id, bob.id, "owner")
    invite = store.invites.create_for_member(bob.id, ann.id, "owner")
    assert store.invites.find(invite)
    store.members.remove(ann.id, bob.id, ann.id)
    assert store.sessions.find(token) is None and store.invites.find(invite) is None
    assert store.accounts.check_password("bob@example.org", PASSWORD) is None
    with pytest.raises(InvalidRequest, match="not valid"):
        store.links.set_password(link, "another password")
    with pytest.raises(InvalidRequest, match="disabled"):
        store.links.for_password(bob.id)
    later = store.sessions.open(bob.id)
    assert store.sessions.find(later) is None
    assert store.keys.find(secret)
    [listed] = store.keys.of_account(ann.id)
    assert (listed.id, listed.made_by) == (key.id, f"bob@example.org (removed {bob.id})")
    assert roles(store, ann) == {"ann": "owner"} and not session(store, ann).has_members
    # The address is free again, here and for an account of its own.
    assert add(store, ann).id != bob.id
    with pytest.raises(InvalidRequest, match="no such member"):
        store.members.remove(ann.id, bob.id)


def test_one_owner_always_stays(store: Store, ann: Account) -> None:
    bob = add(store, ann)
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.set_role(ann.id, ann.id, "member")
    store.members.set_role(ann.id, bob.id, "owner")
    store.members.set_role(ann.id, ann.id, "viewer")
    assert roles(store, ann) == {"ann": "viewer", "bob": "owner"} and not session(store, ann).may("member")
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.remove(ann.id, bob.id, bob.id)
    store.members.set_role(ann.id, ann.id, "owner")
    store.accounts.disable(bob.id)  # by an administrator of the server: no owner who could do anything
    with pytest.raises(InvalidRequest, match="only owner"):
        store.members.remove(ann.id, ann.id)


def test_the_first_owner_may_leave_and_the_account_goes_on(store: Store, ann: Account) -> None:
    bob = add(store, ann, role="owner")
    _, secret = store.keys.create(ann.id, "k")
    token = store.sessions.open(ann.id)
    store.members.remove(ann.id, ann.id, ann.id)
    assert store.sessions.find(token) is None and store.accounts.check_password("ann@example.org", PASSWORD) is None
    with pytest.raises(InvalidRequest):
        store.links.for_password(ann.id)
    assert store.keys.find(secret) and session(store, bob).payer.email == "ann@example.org"
    assert store.members.owners(ann.id) == ["bob@example.org"]


def test_an_administrator_of_the_server_is_not_removed(store: Store) -> None:
    root = store.accounts.create("root@example.org", "", PASSWORD, "admin")
    bob = add(store, root, role="owner")
    with pytest.raises(InvalidRequest, match="administrator of the server"):
        store.members.remove(root.id, root.id, bob.id)
    assert session(store, bob).account.role == "user"


def test_two_owners_cannot_remove_each_other_at_once(store: Store) -> None:
    start = threading.Barrier(2)
    for number in range(5):
        ann = store.accounts.create(f"ann{number}@example.org", "", PASSWORD)
        bob = add(store, ann, f"bob{number}", "owner")

        def remove(one: tuple[int, int], account_id: int = ann.id) -> bool:
            start.wait()
            try:
                store.members.remove(account_id, one[0], one[1])
            except InvalidRequest:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            done = list(threads.map(remove, ((ann.id, bob.id), (bob.id, ann.id))))
        assert sorted(done) == [False, True] and len(store.members.of(ann.id)) == 1


def test_a_disabled_account_keeps_all_its_members_out(store: Store, ann: Account) -> None:
    bob = add(store, ann, role="owner")
    token = store.sessions.open(bob.id)
    invite = store.invites.create_for_member(bob.id, ann.id, "viewer")
    store.accounts.disable(ann.id)
    assert store.sessions.find(token) is None and store.invites.find(invite) is None
    assert store.accounts.check_password("bob@example.org", PASSWORD) is None
    assert store.sessions.find(store.sessions.open(bob.id)) is None
    store.accounts.enable(ann.id)
    assert store.accounts.check_password("bob@example.org", PASSWORD) == bob


# Invitations.


def test_an_invitation_makes_one_member(store: Store, ann: Account) -> None:
    token = store.invites.create_for_member(ann.id, ann.id, "viewer", "Bob@example.org")
    [open_one] = store.invites.open_of(ann.id)
    assert (open_one.email, open_one.role) == ("bob@example.org", "viewer") and token not in open_one.number
    with pytest.raises(InvalidRequest, match="another e-mail address"):
        store.invites.use(token, "eve@example.org", "", PASSWORD)
    bob = store.invites.use(token, "bob@example.org", "Bob", PASSWORD, for_member=True)
    assert (bob.team_id, bob.member_role) == (ann.id, "viewer") and store.invites.open_of(ann.id) == []
    with pytest.raises(InvalidRequest, match="not valid, or has expired"):
        store.invites.use(token, "bob2@example.org", "", PASSWORD)


def test_what_ends_an_invitation(store: Store, ann: Account) -> None:
    bob, eve = add(store, ann, role="owner"), store.accounts.create("eve@example.org", "", PASSWORD, "admin")

    def is_valid(token: str) -> bool:
        return store.invites.find(token) is not None

    withdrawn, demoted, expired = (store.invites.create_for_member(bob.id, ann.id, "member") for _ in range(3))
    number = next(one.number for one in store.invites.open_of(ann.id))
    with pytest.raises(InvalidRequest, match="no such open invitation"):
        store.invites.withdraw(eve.id, number, eve.id)
    for wrong in ("", "x", "00" * 32):
        with pytest.raises(InvalidRequest, match="no such open invitation"):
            store.invites.withdraw(ann.id, wrong, ann.id)
    for one in store.invites.open_of(ann.id):
        store.invites.withdraw(ann.id, one.number, ann.id)
    assert not any(map(is_valid, (withdrawn, demoted, expired)))
    demoted = store.invites.create_for_member(bob.id, ann.id, "member")
    store.members.set_role(ann.id, bob.id, "member")
    assert not is_valid(demoted) and store.invites.open_of(ann.id) == []
    expired = store.invites.create_for_member(ann.id, ann.id, "member")
    with store.database.transaction() as connection:
        connection.execute(update(schema.invites).values(expires=datetime.now(UTC)))
    assert not is_valid(expired)
    of_an_administrator = store.invites.create(eve.id)
    with pytest.raises(InvalidRequest, match="not valid"):
        store.invites.use(of_an_administrator, "x@example.org", "", PASSWORD, for_member=True)
    assert store.invites.use(of_an_administrator, "x@example.org", "", PASSWORD).team_id is None


def test_who_has_an_account_cannot_join_another(store: Store, ann: Account) -> None:
    store.accounts.create("carl@example.org", "", PASSWORD)
    token = store.invites.create_for_member(ann.id, ann.id, "member", "carl@example.org")
    with pytest.raises(InvalidRequest, match="has an account already"):
        store.invites.use(token, "carl@example.org", "", PASSWORD)


def test_members_and_invitations_are_bounded(store: Store, ann: Account) -> None:
    with store.database.transaction() as connection:
        row = {"name": "n", "role": "user", "created": datetime.now(UTC), "team_id": ann.id, "member_role": "viewer"}
        rows = [{**row, "email": f"m{number}@example.org"} for number in range(MAX_MEMBERS - 1)]
        connection.execute(schema.accounts.insert(), rows)
    with pytest.raises(InvalidRequest, match="at most 100 members"):
        add(store, ann)
    for _ in range(MAX_OPEN):
        store.invites.create_for_member(ann.id, ann.id, "viewer")
    with pytest.raises(InvalidRequest, match="at most 100 open invitations"):
        store.invites.create_for_member(ann.id, ann.id, "viewer")


# Who did what, and who is told.


def test_the_log_of_an_account_says_who_did_it(store: Store, ann: Account) -> None:
    root = store.accounts.create("root@example.org", "", PASSWORD, "admin")
    store.keys.create(ann.id, "before there were members", by=session(store, ann).actor)
    token = store.invites.create_for_member(ann.id, ann.id, "member", "bob@example.org")
    bob = store.invites.use(token, "bob@example.org", "", PASSWORD)
    key, _ = store.keys.create(ann.id, "job", by=session(store, bob).actor)
    store.keys.set_budget(key.id, 5_000_000, ann.id, session(store, ann).actor)
    store.ledger.add_credits(ann.id, 5, "", root.id)
    store.members.set_role(ann.id, bob.id, "viewer", ann.id)
    store.members.remove(ann.id, bob.id, bob.id)
    done = [(one.by and one.by.partition("@")[0], one.action) for one in store.admin_log.of_members(ann.id, 50)]
    assert done == [
        ("bob", "member left"),
        ("ann", "member role changed"),
        ("ann", "budget set"),
        ("bob", "key created"),
        ("bob", "member joined"),
        ("ann", "member invited"),
    ]
    assert store.admin_log.find(50, account_id=ann.id)[2].action == "credit added"


def test_every_owner_is_warned(store: Store, ann: Account) -> None:
    add(store, ann, "bob", "owner"), add(store, ann, "eve", "viewer")
    store.ledger.add_credits(ann.id, 1)
    with smtp_server() as received:
        mailer = Mailer(received.url, "rerank@example.org")
        CreditMails(store, mailer, PriceFile(None), 5_000_000, "https://rerank.example").look()
        warned = sorted(to for recipients, _ in received.mails for to in recipients)
        assert warned == [
            "ann@example.org",
            "bob@example.org",
        ]


def test_members_are_no_accounts_in_the_list_of_accounts(store: Store, ann: Account) -> None:
    add(store, ann)
    assert [one.email for one in list_accounts(store.database).accounts] == ["ann@example.org"]
    assert [one.email for one in list_accounts(store.database, "bob").accounts] == ["bob@example.org"]
