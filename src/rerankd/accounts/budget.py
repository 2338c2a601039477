"""Budgets: what the calls of a key may cost in a calendar month (UTC). Knows no database."""

from __future__ import annotations

from datetime import UTC, date, datetime

from rerankd.errors import OverBudget


def month_of(moment: datetime) -> int:
    """The month of a moment, as 202611."""
    moment = moment.astimezone(UTC)
    return moment.year * 100 + moment.month


def next_month(moment: datetime) -> date:
    """The first day of the month after a moment: budgets start again at its beginning."""
    moment = moment.astimezone(UTC)
    return date(moment.year + moment.month // 12, moment.month % 12 + 1, 1)


def over_budget(
    budget: int, spent: int, now: datetime, currency: str, reserved: int = 0, cost: int | None = None
) -> OverBudget:
    """The refusal of a call that does not fit into the budget of its key. See `OverBudget`."""
    return OverBudget(budget, spent, reserved, cost, currency, next_month(now))
