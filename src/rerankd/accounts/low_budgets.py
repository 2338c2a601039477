"""Which keys have nearly spent the budget of this month, each named once a month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, select, update

from rerankd.accounts.budget import month_of
from rerankd.accounts.database import Database
from rerankd.accounts.schema import accounts, keys, months

NEARLY = 80
"""Per cent of a budget."""


@dataclass(frozen=True, slots=True)
class LowBudget:
    """A key and its month. account: the e-mail address of its account. key: its name and hint. Money in millionths."""

    key_id: int
    month: int
    account_id: int
    account: str
    key: str
    budget: int
    spent: int


class LowBudgets:
    """The keys of one database. Each method is one transaction; of several servers, one takes a key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self) -> list[LowBudget]:
        """The keys that have spent NEARLY as much as their budget in this month, and were not taken before.

        After a change of its budget, a key can be taken again.
        """
        is_low = (keys.c.budget.is_not(None), months.c.spent * 100 >= keys.c.budget * NEARLY)
        in_use = (keys.c.revoked.is_(None), accounts.c.disabled.is_(False), months.c.warned.is_(None))
        query = (
            select(months.c.key_id, months.c.month, keys.c.account_id, accounts.c.email, keys.c.name, keys.c.hint)
            .add_columns(keys.c.budget, months.c.spent)
            .join_from(keys, months, (months.c.key_id == keys.c.id) & (months.c.month == month_of(datetime.now(UTC))))
            .join(accounts, keys.c.account_id == accounts.c.id)
            .where(*is_low, *in_use)
            .order_by(keys.c.id)
        )
        with self._database.read() as connection:
            found = [
                LowBudget(
                    row.key_id, row.month, row.account_id, row.email, f"{row.name} ({row.hint})", row.budget, row.spent
                )
                for row in connection.execute(query)
            ]
        return [low for low in found if self._mark(low)]

    def give_back(self, low: LowBudget) -> None:
        """Nobody was warned: the key can be taken again."""
        with self._database.transaction() as connection:
            connection.execute(update(months).where(*_row(low)).values(warned=None))

    def _mark(self, low: LowBudget) -> bool:
        """Returns False where another server was quicker."""
        taking = update(months).where(*_row(low), months.c.warned.is_(None)).values(warned=datetime.now(UTC))
        with self._database.transaction() as connection:
            return bool(connection.execute(taking).rowcount)


def _row(low: LowBudget) -> tuple[ColumnElement[bool], ...]:
    return (months.c.key_id == low.key_id, months.c.month == low.month)
