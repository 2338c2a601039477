"""Finds accounts that run low on credit, each once until its credit is above the limit again."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import exists, select, update

from rerankd.accounts.accounts import Account, account_of
from rerankd.accounts.database import Database
from rerankd.accounts.schema import IS_CREDIT, accounts, entries

AVAILABLE = accounts.c.balance - accounts.c.reserved
_HAD_CREDIT = exists().where(entries.c.account_id == accounts.c.id, IS_CREDIT)


class LowCredit:
    """The accounts of one database. Each method is one transaction; of several servers, one takes an account."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self, limit: int) -> list[Account]:
        """The enabled accounts with less credit than the limit, in millionths, that were not taken before.

        An account that never had credit is not low on it. One with enough credit again can be taken again.
        """
        is_low, is_new = AVAILABLE < limit, accounts.c.warned.is_(None)
        enabled = accounts.c.disabled.is_(False)
        with self._database.read() as connection:
            low = connection.scalars(select(accounts.c.id).where(is_low, is_new, enabled, _HAD_CREDIT)).all()
            paid = connection.scalars(select(accounts.c.id).where(AVAILABLE >= limit, accounts.c.warned.is_not(None)))
            paid_ids = paid.all()
        if not low and not paid_ids:
            return []
        with self._database.transaction() as connection:
            enough = accounts.c.id.in_(paid_ids) & (AVAILABLE >= limit)
            connection.execute(update(accounts).where(enough).values(warned=None))
            taking = update(accounts).where(accounts.c.id.in_(low), is_low, is_new).values(warned=datetime.now(UTC))
            return [account_of(row._mapping) for row in connection.execute(taking.returning(*accounts.c))]

    def give_back(self, account_id: int) -> None:
        """The account was not warned: it can be taken again."""
        with self._database.transaction() as connection:
            connection.execute(update(accounts).where(accounts.c.id == account_id).values(warned=None))
