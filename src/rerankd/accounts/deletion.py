"""Deletes an account: everything that names or identifies its owner, and nothing that the books need.

The ledger is append-only, and its entries name the account by number. So the row of the account stays, without address,
name and password, and so do its entries and their keys, without the keys' names.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, Table, delete, select, update

from rerankd.accounts.accounts import keep_an_admin, refuse_deleted, update_account
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.members import keep_an_owner
from rerankd.accounts.memberships import end_lost_sign_in
from rerankd.accounts.schema import (
    accounts,
    calls,
    confirmations,
    identities,
    invites,
    keys,
    links,
    memberships,
    recovery_codes,
    sessions,
)

OWN_TABLES: tuple[Table, ...] = (calls, confirmations, identities, links, recovery_codes, sessions)
"""Whose rows of the account are deleted."""


def delete_account(database: Database, account_id: int, by: Actor = "operator") -> None:
    """Deletes an account for ever, with its members: its keys are refused at once, and its address is free again.

    A member who acts in another account, too, stays there.

    Args:
        by: who deletes it, for the log.

    Raises:
        InvalidRequest: there is no such account, it was deleted before, or no administrator
                would be left; or it is the only owner of another account that it is a member of.
    """
    with database.transaction() as connection:
        refuse_deleted(connection, account_id)
        keep_an_admin(connection, account_id)
        _keep_owners(connection, account_id)
        _forget_person(connection, account_id)
        _end_memberships(connection, account_id)
        _forget_names(connection, account_id)
        write(connection, by, "account deleted", account_id)


def _keep_owners(connection: Connection, person_id: int) -> None:
    """Raises InvalidRequest if an account, other than the person's own, would be left without an owner."""
    team = connection.scalar(select(accounts.c.team_id).where(accounts.c.id == person_id))
    mine = (memberships.c.person_id == person_id, memberships.c.role != "none")
    joined = connection.scalars(select(memberships.c.account_id).where(*mine)).all()
    payers = sorted({*joined, *([] if team is None else [team])})
    # Locked in one order, so that two deletions do not wait for each other.
    locked = select(accounts.c.id).where(accounts.c.id.in_([person_id, *payers])).order_by(accounts.c.id)
    connection.execute(locked.with_for_update())
    for payer in payers:
        keep_an_owner(connection, payer, person_id)


def _end_memberships(connection: Connection, account_id: int) -> None:
    """Nothing is kept of a member who acts in no other account."""
    others = select(memberships.c.person_id).where(memberships.c.role != "none", memberships.c.account_id != account_id)
    own = (accounts.c.team_id == account_id, accounts.c.deleted.is_(None))
    lost = connection.scalars(select(accounts.c.id).where(*own, accounts.c.id.not_in(others))).all()
    here = (memberships.c.account_id == account_id, memberships.c.role != "none")
    joined = connection.scalars(select(memberships.c.person_id).where(*here)).all()
    connection.execute(update(accounts).where(accounts.c.team_id == account_id).values(member_role="none"))
    connection.execute(delete(memberships).where(memberships.c.account_id == account_id))
    connection.execute(delete(sessions).where(sessions.c.payer_id == account_id))
    for one in lost:
        _forget_person(connection, one)
    for one in joined:  # whose row may be an account of its own
        end_lost_sign_in(connection, one)


def _forget_person(connection: Connection, account_id: int) -> None:
    update_account(connection, account_id, _without_person(account_id))
    for table in OWN_TABLES:
        connection.execute(delete(table).where(table.c.account_id == account_id))
    connection.execute(delete(memberships).where(memberships.c.person_id == account_id))


def _without_person(account_id: int) -> dict[str, object]:
    """`.invalid` is a domain that nobody can have (https://www.rfc-editor.org/rfc/rfc2606)."""
    return {
        "email": f"deleted-{account_id}@rerankd.invalid",
        "name": "deleted",
        "role": "user",
        "password": None,
        "totp_secret": None,
        "totp_step": None,
        "disabled": True,
        "deleted": datetime.now(UTC),
        "member_role": "none",
    }


def _forget_names(connection: Connection, account_id: int) -> None:
    """Keys and invitations stay, since entries and other accounts refer to them."""
    still = keys.c.revoked.is_(None)
    connection.execute(update(keys).where(keys.c.account_id == account_id, still).values(revoked=datetime.now(UTC)))
    connection.execute(update(keys).where(keys.c.account_id == account_id).values(name="deleted"))
    connection.execute(update(invites).where(invites.c.used_by == account_id).values(email=None))
