"""The usage of a period, for charts, tables and CSV: what was charged, what became of all calls, how long they took."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from starlette.requests import Request

from rerankd.accounts.daily_calls import CallSums, calls_by_day, calls_by_key
from rerankd.accounts.daily_latencies import latencies_by_day
from rerankd.accounts.database import Database
from rerankd.accounts.latencies import Latencies, percentile, together
from rerankd.accounts.schema import CALL_SUMS, CHARGE_SUMS
from rerankd.accounts.usage import By, UsageRow, largest_accounts, usage
from rerankd.money import decimal
from rerankd.web.charts import BarChart, Point, bar_chart
from rerankd.web.formatting import money, number, short

PERIODS = (7, 30, 90, 365)
"""The periods that can be chosen, in days."""

MAX_COLUMNS = 100
"""Of a chart; a longer period is drawn by week."""

MAX_ACCOUNTS = 50
"""In the table of accounts; the CSV file has all of them."""

DAYS_COLUMNS = (
    *("day", "calls", "refused", "documents", "mean_ms", "p95_ms"),
    *("tokens", "free_tokens", "billed_tokens", "cost"),
)
"""Of the CSV file of days."""

NO_CHARGES = UsageRow(None, None, None, None, None, None, 0, 0, 0, 0, 0)
NO_CALLS = CallSums(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class UsageDay:
    """A day or a week, named by its first day: what was charged, what became of the calls, how long they took."""

    day: date
    charges: UsageRow
    calls: CallSums
    latencies: Latencies

    @property
    def p95_ms(self) -> int | None:
        """The time that 95 of 100 answered calls did not pass; None if it is not known. At most a 32nd too high."""
        return percentile(self.latencies, 95)

    @property
    def has_calls(self) -> bool:
        return bool(self.charges.calls or self.calls.answered or self.calls.refused)


@dataclass(frozen=True, slots=True)
class UsageChart:
    """A chart of one quantity by day.

    Attributes:
        name: of the quantity.
        summary: its value for the whole period.
        kinds: what the values of a day are, where there are several.
        lines: the grid lines with their labels.
        ticks: what the lines over the bars are.
    """

    name: str
    summary: str
    chart: BarChart
    lines: tuple[tuple[float, str], ...]
    kinds: tuple[str, ...] = ()
    ticks: str = ""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The usage of one account, or of all.

    Attributes:
        steps: the days or weeks with calls, the oldest first.
        charts: one of each quantity.
        step: what they are, and the columns of the charts.
        calls_by_key: by the key's id.
        by_account: the accounts with the most tokens; empty for one account.
        accounts: how many accounts have charges.
        total: tokens.
    """

    days: int
    steps: Sequence[UsageDay]
    charts: Sequence[UsageChart]
    step: str
    by_key: Sequence[UsageRow]
    calls_by_key: Mapping[int, CallSums]
    by_model: Sequence[UsageRow]
    by_account: Sequence[UsageRow]
    accounts: int
    total: int
    periods: tuple[int, ...] = PERIODS


def usage_report(database: Database, request: Request, account_id: int | None, currency: str) -> UsageReport:
    """The usage of the requested period. account_id: None for all accounts."""
    since, until, days = requested_period(request)

    def by(column: By) -> list[UsageRow]:
        return usage(database, (column,), account_id, since, until)

    daily = daily_usage(database, account_id, since, until)
    steps = daily if days <= MAX_COLUMNS else _weeks(daily)
    largest, accounts = largest_accounts(database, since, until, MAX_ACCOUNTS) if account_id is None else ([], 0)
    return UsageReport(
        days=days,
        steps=[one for one in steps if one.has_calls],
        charts=charts_of(steps, currency),
        step="day" if days <= MAX_COLUMNS else "week",
        by_key=by("key") if account_id is not None else [],
        calls_by_key=calls_by_key(database, account_id, since, until) if account_id is not None else {},
        by_model=by("model"),
        by_account=largest,
        accounts=accounts,
        total=sum(one.charges.tokens for one in daily),
    )


def daily_usage(database: Database, account_id: int | None, since: date, until: date) -> list[UsageDay]:
    """Each day of a period, the oldest first. until: the first day excluded."""
    charges = {row.day: row for row in usage(database, ("day",), account_id, since, until)}
    calls = calls_by_day(database, account_id, since, until)
    latencies = latencies_by_day(database, account_id, since, until)
    dates = (since + timedelta(days=number) for number in range((until - since).days))
    return [
        UsageDay(day, charges.get(day, NO_CHARGES), calls.get(day, NO_CALLS), latencies.get(day, {})) for day in dates
    ]


def days_as_csv(daily: Sequence[UsageDay]) -> str:
    """A header, then a line for each day with calls. Costs in currency units."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(DAYS_COLUMNS)
    for one in daily:
        if one.has_calls:
            charges, calls = one.charges, one.calls
            about = (one.day, charges.calls, calls.refused, calls.documents, calls.mean_ms, one.p95_ms)
            lines.writerow((*about, charges.tokens, charges.free_tokens, charges.billed_tokens, decimal(charges.cost)))
    return text.getvalue()


def charts_of(daily: Sequence[UsageDay], currency: str) -> list[UsageChart]:
    """Tokens, cost, calls and time by day."""
    whole = _sum(daily)
    charges, calls = whole.charges, whole.calls
    return [
        _chart("Tokens", number(charges.tokens), daily, _tokens),
        _chart("Cost", money(charges.cost, currency), daily, lambda one: _cost(one, currency), unit=1e6),
        _chart("Calls", _both(charges.calls, calls.refused), daily, _calls, ("charged", "refused")),
        _chart("Time of a call", _times(whole), daily, _time, ("mean",), end=" ms", ticks="P95"),
    ]


def milliseconds(value: int | None) -> str:
    """A time, or that there is none."""
    return "no calls" if value is None else f"{number(value)} ms"


def requested_period(request: Request) -> tuple[date, date, int]:
    """(first day, tomorrow, number of days), in UTC."""
    requested = request.query_params.get("days", "")
    days = int(requested) if requested in map(str, PERIODS) else 30
    until = datetime.now(UTC).date() + timedelta(days=1)
    return until - timedelta(days=days), until, days


def _weeks(daily: Sequence[UsageDay]) -> list[UsageDay]:
    """Sums of seven days, named by the first of them. The last one ends today; the first one may be shorter."""
    first = len(daily) % 7
    weeks = [daily[:first], *(daily[at : at + 7] for at in range(first, len(daily), 7))]
    return [_sum(week) for week in weeks if week]


def _sum(days: Sequence[UsageDay]) -> UsageDay:
    charges = {name: sum(getattr(one.charges, name) for one in days) for name in CHARGE_SUMS}
    calls = {name: sum(getattr(one.calls, name) for one in days) for name in CALL_SUMS}
    latencies = together(one.latencies for one in days)
    return UsageDay(days[0].day, replace(NO_CHARGES, **charges), CallSums(**calls), latencies)


Values = Callable[[UsageDay], tuple[tuple[int, ...], str]]


def _chart(
    name: str,
    summary: str,
    daily: Sequence[UsageDay],
    values: Values,
    kinds: tuple[str, ...] = (),
    unit: float = 1,
    end: str = "",
    ticks: str = "",
) -> UsageChart:
    chart = bar_chart([Point(f"{one.day}", *values(one), one.p95_ms if ticks else None) for one in daily])
    lines = tuple((y, f"{short(value / unit)}{end}") for y, value in chart.lines)
    return UsageChart(name, summary, chart, lines, kinds, ticks)


def _tokens(one: UsageDay) -> tuple[tuple[int, ...], str]:
    return (one.charges.tokens,), f"{number(one.charges.tokens)} tokens"


def _cost(one: UsageDay, currency: str) -> tuple[tuple[int, ...], str]:
    return (one.charges.cost,), money(one.charges.cost, currency)


def _calls(one: UsageDay) -> tuple[tuple[int, ...], str]:
    return (one.charges.calls, one.calls.refused), _both(one.charges.calls, one.calls.refused)


def _both(charged: int, refused: int) -> str:
    return f"{number(charged)} charged, {number(refused)} refused"


def _time(one: UsageDay) -> tuple[tuple[int, ...], str]:
    return (one.calls.mean_ms or 0,), _times(one)


def _times(one: UsageDay) -> str:
    mean = milliseconds(one.calls.mean_ms)
    return mean if one.p95_ms is None else f"mean {mean}, P95 {milliseconds(one.p95_ms)}"
