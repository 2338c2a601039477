"""How long the answered calls of each day took, by class of milliseconds; of the calls that are still in the list."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY = 86_400_000_000
"""In microseconds, the unit of `time`."""

COUNTS = f"""
    SELECT account_id, calls.time / {DAY} AS day, milliseconds, COUNT(*) AS number
    FROM calls WHERE error IS NULL GROUP BY account_id, calls.time / {DAY}, milliseconds
"""


def upgrade() -> None:
    reference = sa.ForeignKey("accounts.id", name="daily_latencies_account_id_fkey")
    account = sa.Column("account_id", ID, reference, nullable=False, autoincrement=False)
    of_accounts = _create_table("daily_latencies", account)
    of_days = _create_table("daily_latency_totals")
    by_account: defaultdict[tuple[int, int], Counter[int]] = defaultdict(Counter)
    by_day: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for row in op.get_bind().execute(sa.text(COUNTS)):
        one = _class_of(row.milliseconds)
        by_account[row.account_id, row.day][one] += row.number
        by_day[row.day][one] += row.number
    _fill(of_accounts, [{"account_id": key[0], "day": key[1], "counts": counts} for key, counts in by_account.items()])
    _fill(of_days, [{"day": day, "counts": counts} for day, counts in by_day.items()])


def _class_of(milliseconds: int) -> int:
    """As `rerankd.accounts.latencies` had it at this revision."""
    shift = max(0, milliseconds.bit_length() - 6)
    return (shift << 5) + (milliseconds >> shift)


def _fill(table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        op.bulk_insert(table, rows)


def _create_table(name: str, *key: sa.Column[Any]) -> sa.Table:
    day = sa.Column("day", sa.Integer(), nullable=False, autoincrement=False)
    return op.create_table(
        name,
        *key,
        day,
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint(*(column.name for column in (*key, day)), name=f"{name}_pkey"),
        sqlite_with_rowid=False,
    )
