"""The log of the actions of administrators and members: written in their transaction, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Select, insert, select

from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, admin_log, memberships
from rerankd.accounts.validation import storable

Actor = int | Literal["operator", "owner"]
"""The actor: the administrator or member with this account, the operator on the command line, or the only person of an
account."""

MAX_DETAIL = 500


@dataclass(frozen=True, slots=True)
class AdminAction:
    """Something that an administrator or a member did.

    Attributes:
        by: the e-mail address of the administrator or member; None: the operator of the server, on the command line.
        action: as `credit added`.
        account_id, account: that it was done to, with its e-mail address; None: to none.
        detail: the amount, the name of the key, …; empty if there is none.
    """

    id: int
    time: datetime
    by: str | None
    action: str
    account_id: int | None
    account: str | None
    detail: str


class AdminLog:
    """The log of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, limit: int, before: int | None = None, account_id: int | None = None) -> list[AdminAction]:
        """At most `limit` actions, the newest first.

        Args:
            before: only actions with a smaller id: the next page of a list.
            account_id: that they were done to; None: any.
        """
        query = _query(limit)
        if before is not None:
            query = query.where(admin_log.c.id < before)
        if account_id is not None:
            query = query.where(admin_log.c.account_id == account_id)
        return self._read(query)

    def of_members(self, account_id: int, limit: int) -> list[AdminAction]:
        """What the people of an account did in it, the newest first; not what administrators of the server did."""
        people = select(accounts.c.id).where((accounts.c.id == account_id) | (accounts.c.team_id == account_id))
        joined = select(memberships.c.person_id).where(memberships.c.account_id == account_id)
        made_by = admin_log.c.made_by.in_(people) | admin_log.c.made_by.in_(joined)
        mine = (admin_log.c.account_id == account_id, made_by)
        return self._read(_query(limit).where(*mine))

    def _read(self, query: Select[Any]) -> list[AdminAction]:
        with self._database.read() as connection:
            return [
                AdminAction(row.id, row.time, row.actor, row.action, row.account_id, row.subject, row.detail)
                for row in connection.execute(query)
            ]


def _query(limit: int) -> Select[Any]:
    """The newest lines, with the addresses of who did it and to whom."""
    actor, subject = accounts.alias(), accounts.alias()
    return (
        select(admin_log, actor.c.email.label("actor"), subject.c.email.label("subject"))
        .join_from(admin_log, actor, admin_log.c.made_by == actor.c.id, isouter=True)
        .join(subject, admin_log.c.account_id == subject.c.id, isouter=True)
        .order_by(admin_log.c.id.desc())
        .limit(limit)
    )


def write(connection: Connection, actor: Actor, action: str, account_id: int | None, detail: str = "") -> None:
    """Logs an action in its own transaction. What the only person of an account does is not logged."""
    if actor == "owner":
        return
    values = {
        "time": datetime.now(UTC),
        "made_by": actor if isinstance(actor, int) else None,
        "action": action,
        "account_id": account_id,
        "detail": storable(detail)[:MAX_DETAIL],
    }
    connection.execute(insert(admin_log), values)
