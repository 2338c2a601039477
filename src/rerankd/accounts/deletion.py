"""Deletes an account: everything that names or identifies its owner, and nothing that the books need.

The ledger is append-only, and its entries name the account by number. So the row of the account stays, without address,
name and password, and so do its entries and their keys, without the keys' names.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, Table, delete, select, update

from rerankd.accounts.accounts import everybody, keep_an_admin, refuse_deleted, update_account
from rerankd.accounts.admin_log import Actor, write
from rerankd.accounts.database import Database
from rerankd.accounts.members import keep_an_owner
from rerankd.accounts.schema import (
    accounts,
    calls,
    confirmations,
    identities,
    invites,
    keys,
    links,
    recovery_codes,
    sessions,
)

OWN_TABLES: tuple[Table, ...] = (calls, confirmations, identities, links, recovery_codes, sessions)
"""Whose rows of the account are deleted."""


def delete_account(database: Database, account_id: int, by: Actor = "operator") -> None:
    """Deletes an account for ever, with its members: its keys are refused at once, and its address is free again.

    Args:
        by: who deletes it, for the log.

    Raises:
        InvalidRequest: there is no such account, it was deleted before, or no administrator
                would be left; or it is the only owner of the account that it is a member of.
    """
    with database.transaction() as connection:
        refuse_deleted(connection, account_id)
        keep_an_admin(connection, account_id)
        payer = connection.scalar(select(accounts.c.team_id).where(accounts.c.id == account_id))
        if payer is not None:
            keep_an_owner(connection, payer, account_id)
        people = connection.scalars(select(accounts.c.id).where(everybody(account_id))).all()
        for one in (account_id, *(one for one in people if one != account_id)):
            _forget_person(connection, one)
        _forget_names(connection, account_id)
        write(connection, by, "account deleted", account_id)


def _forget_person(connection: Connection, account_id: int) -> None:
    update_account(connection, account_id, _without_person(account_id))
    for table in OWN_TABLES:
        connection.execute(delete(table).where(table.c.account_id == account_id))


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
