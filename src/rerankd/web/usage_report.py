"""The charged usage of a period, for charts and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from starlette.requests import Request

from rerankd.accounts.database import Database
from rerankd.accounts.usage import By, UsageRow, usage
from rerankd.web.charts import BarChart, bars

PERIODS = (7, 30, 90, 365)
"""The periods that can be chosen, in days."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The usage of one account, or of all. by_account: empty for one account. total: tokens."""

    days: int
    daily: Mapping[date | None, UsageRow]
    tokens_chart: BarChart
    by_key: list[UsageRow]
    by_model: list[UsageRow]
    by_account: list[UsageRow]
    total: int
    periods: tuple[int, ...] = PERIODS


def usage_report(database: Database, request: Request, account_id: int | None) -> UsageReport:
    """The usage of the requested period. account_id: None for all accounts."""
    since, until, days = requested_period(request)

    def by(column: By) -> list[UsageRow]:
        return usage(database, (column,), account_id, since, until)

    daily = {row.day: row for row in by("day")}
    dates = [(since + timedelta(days=number)).date() for number in range(days)]
    return UsageReport(
        days=days,
        daily=daily,
        tokens_chart=bars([(f"{day}", daily[day].tokens if day in daily else 0) for day in dates]),
        by_key=by("key"),
        by_model=by("model"),
        by_account=by("account") if account_id is None else [],
        total=sum(row.tokens for row in daily.values()),
    )


def requested_period(request: Request) -> tuple[datetime, datetime, int]:
    """(start of the first day, end of today, number of days), in UTC."""
    requested = request.query_params.get("days", "")
    days = int(requested) if requested in map(str, PERIODS) else 30
    until = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), time(), UTC)
    return until - timedelta(days=days), until, days
