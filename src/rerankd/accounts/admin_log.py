"""The log of administrators' actions: written in the transaction of the action, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Connection, insert, select

from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, admin_log
from rerankd.accounts.validation import storable

Actor = int | Literal["operator", "owner"]
"""The actor: the administrator with this account, the operator on the command line, or the account's owner."""

MAX_DETAIL = 500


@dataclass(frozen=True, slots=True)
class AdminAction:
    """Something that an administrator did.

    Attributes:
        by: the administrator's e-mail address; None: the operator of the server, on the command line.
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
        actor, subject = accounts.alias(), accounts.alias()
        query = (
            select(admin_log, actor.c.email.label("actor"), subject.c.email.label("subject"))
            .join_from(admin_log, actor, admin_log.c.made_by == actor.c.id, isouter=True)
            .join(subject, admin_log.c.account_id == subject.c.id, isouter=True)
            .order_by(admin_log.c.id.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(admin_log.c.id < before)
        if account_id is not None:
            query = query.where(admin_log.c.account_id == account_id)
        with self._database.read() as connection:
            return [
                AdminAction(row.id, row.time, row.actor, row.action, row.account_id, row.subject, row.detail)
                for row in connection.execute(query)
            ]


def write(connection: Connection, actor: Actor, action: str, account_id: int | None, detail: str = "") -> None:
    """Logs an action in its own transaction. What the owner of an account does is not logged."""
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
