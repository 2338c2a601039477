"""What administrators did: each action in the log, once, in the transaction that does it, and for ever."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from rerankd.accounts.directory import Sort, list_accounts
from rerankd.accounts.store import Store
from rerankd.errors import InvalidRequest, Unavailable
from rerankd.types import CallLimits


def lines(store: Store) -> list[tuple[str | None, str, str | None, str]]:
    """(by, action, account, detail), the oldest first."""
    return [(one.by, one.action, one.account, one.detail) for one in store.admin_log.find(100)[::-1]]


def test_each_action_is_one_line(store: Store) -> None:
    ada = store.accounts.create("ada@example.org", role="admin")
    bob = store.accounts.create("bob@example.org", by=ada.id)
    store.accounts.set_limits(bob.id, CallLimits(10, None, 2), ada.id)
    store.accounts.set_role(bob.id, "admin", ada.id)
    store.accounts.set_password(bob.id, "a password", ada.id)
    store.accounts.disable(bob.id, ada.id)
    store.accounts.enable(bob.id)
    store.ledger.add_credits(bob.id, 2_500_000, "invoice 17", ada.id)
    store.ledger.add_credits(bob.id, -1)
    key, _ = store.keys.create(bob.id, "a key")
    for _ in range(2):
        store.keys.revoke(key.id, bob.id, ada.id)
    store.invites.create(ada.id, "new@example.org")
    named = f"a key ({key.hint})"
    assert lines(store) == [
        (None, "account created", ada.email, "admin"),
        (ada.email, "account created", bob.email, "user"),
        (ada.email, "limits set", bob.email, "requests_per_minute 10, concurrency 2"),
        (ada.email, "role changed", bob.email, "admin"),
        (ada.email, "password set", bob.email, ""),
        (ada.email, "account disabled", bob.email, ""),
        (None, "account enabled", bob.email, ""),
        (ada.email, "credit added", bob.email, "2.50 invoice 17"),
        (None, "credit removed", bob.email, "-0.000001"),
        (None, "key created", bob.email, named),
        (ada.email, "key revoked", bob.email, named),
        (ada.email, "invitation created", None, "new@example.org"),
    ]
    assert [one.account for one in store.admin_log.find(2, account_id=ada.id)] == [ada.email]
    newest = store.admin_log.find(3)
    assert [one.id for one in store.admin_log.find(100, newest[-1].id)] == list(range(newest[-1].id - 1, 0, -1))


def test_what_owners_do_and_what_is_refused_is_not_logged(store: Store) -> None:
    ann = store.accounts.create("ann@example.org", role="admin", by="owner")
    key, _ = store.keys.create(ann.id, "own", by="owner")
    store.keys.revoke(key.id, ann.id, by="owner")
    store.accounts.set_password(ann.id, "a password", by="owner")
    for refused in (
        lambda: store.accounts.disable(ann.id),
        lambda: store.accounts.set_role(ann.id, "user"),
        lambda: store.accounts.enable(99),
        lambda: store.accounts.create("ann@example.org"),
        lambda: store.keys.revoke(99),
    ):
        with pytest.raises(InvalidRequest):
            refused()
    assert lines(store) == []


@pytest.mark.parametrize("change", ["UPDATE admin_log SET action = 'x'", "DELETE FROM admin_log"])
def test_the_log_can_be_neither_changed_nor_deleted(store: Store, change: str) -> None:
    store.accounts.create("ann@example.org")
    with pytest.raises(Unavailable) as raised, store.database.transaction() as connection:
        connection.execute(text(change))
    assert "append-only" in str(raised.value.__cause__)


def test_accounts_are_searched_sorted_and_paged(store: Store) -> None:
    for name, number in (("cy", 10), ("bo", 2), ("anna", 1)):
        store.accounts.create(f"{name}@example.org", f"Name {number}%")
    store.ledger.add_credits(2, 500)
    store.accounts.disable(3)

    def emails(search: str = "", sort: Sort = "email", descending: bool = False, offset: int = 0) -> list[str]:
        listing = list_accounts(store.database, search, sort, descending, offset, 2)
        return [account.email.partition("@")[0] for account in listing.accounts]

    assert emails() == ["anna", "bo"] and emails(offset=2) == ["cy"]
    assert emails(sort="created") == ["cy", "bo"] and emails(sort="credit", descending=True) == ["bo", "cy"]
    assert emails(sort="state", descending=True)[0] == "anna"
    assert emails(" ANNA@ ") == ["anna"] and emails("name 1") == ["anna", "cy"]
    assert emails("1%") == ["anna"] and emails("0%") == ["cy"] and emails("_") == emails("nobody\0") == []
    assert list_accounts(store.database, "example.org").total == 3
