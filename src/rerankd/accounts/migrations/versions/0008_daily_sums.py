"""Sums of each day: of charges, which a trigger keeps equal to the entries, and of calls.

On PostgreSQL other servers write while this runs. They wait for it from the creation of the trigger on, so the days
before yesterday, nearly all of the entries, are summed before that.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
DAY = 86_400_000_000
"""In microseconds, the unit of `time`."""

CHARGES = ("calls", "tokens", "free_tokens", "billed_tokens", "cost")
CALLS = ("answered", "refused", "documents", "milliseconds")


def _added(table: str) -> str:
    """The end of an INSERT that adds to the sums of a row that exists."""
    return "DO UPDATE SET " + ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in CHARGES)


_NEW = "1, NEW.tokens, NEW.free_tokens, NEW.billed_tokens, -NEW.amount"
_ADD = (
    f"INSERT INTO daily_charges (account_id, day, key_id, model, {', '.join(CHARGES)}) "
    f"VALUES (NEW.account_id, NEW.time / {DAY}, NEW.key_id, NEW.model, {_NEW}) "
    f"ON CONFLICT (account_id, day, key_id, model) {_added('daily_charges')}; "
    f"INSERT INTO daily_charge_totals (day, model, shard, {', '.join(CHARGES)}) "
    f"VALUES (NEW.time / {DAY}, NEW.model, NEW.account_id % 16, {_NEW}) "
    f"ON CONFLICT (day, model, shard) {_added('daily_charge_totals')};"
)
TRIGGER = {
    "sqlite": (f"CREATE TRIGGER entries_daily_sums AFTER INSERT ON entries WHEN NEW.kind = 'charge' BEGIN {_ADD} END",),
    "postgresql": (
        f"CREATE FUNCTION add_to_daily_sums() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_ADD} RETURN NULL; END $$",
        "CREATE TRIGGER entries_daily_sums AFTER INSERT ON entries "
        "FOR EACH ROW WHEN (NEW.kind = 'charge') EXECUTE FUNCTION add_to_daily_sums()",
    ),
}

FILL_CHARGES = f"""
    INSERT INTO daily_charges (account_id, day, key_id, model, {", ".join(CHARGES)})
    SELECT account_id, entries.time / {DAY}, key_id, model,
        COUNT(*), SUM(tokens), SUM(free_tokens), SUM(billed_tokens), -SUM(amount)
    FROM entries WHERE kind = 'charge' AND entries.time >= :since AND entries.time < :until
    GROUP BY account_id, entries.time / {DAY}, key_id, model
"""
FILL_TOTALS = f"""
    INSERT INTO daily_charge_totals (day, model, shard, {", ".join(CHARGES)})
    SELECT day, model, account_id % 16, {", ".join(f"SUM({name})" for name in CHARGES)}
    FROM daily_charges GROUP BY day, model, account_id % 16
"""
FILL_CALLS = f"""
    INSERT INTO daily_calls (account_id, day, key_id, {", ".join(CALLS)})
    SELECT account_id, calls.time / {DAY}, key_id,
        SUM(CASE WHEN error IS NULL THEN 1 ELSE 0 END), SUM(CASE WHEN error IS NULL THEN 0 ELSE 1 END),
        SUM(CASE WHEN error IS NULL THEN COALESCE(documents, 0) ELSE 0 END),
        SUM(CASE WHEN error IS NULL THEN milliseconds ELSE 0 END)
    FROM calls GROUP BY account_id, calls.time / {DAY}, key_id
"""
FILL_CALL_TOTALS = f"""
    INSERT INTO daily_call_totals (day, {", ".join(CALLS)})
    SELECT day, {", ".join(f"SUM({name})" for name in CALLS)} FROM daily_calls GROUP BY day
"""


def upgrade() -> None:
    _create_tables()
    yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    since_yesterday = int(yesterday.timestamp()) * 1_000_000
    _fill_charges(0, since_yesterday)
    for statement in TRIGGER[op.get_bind().dialect.name]:
        op.execute(statement)
    _fill_charges(since_yesterday, 2**62)
    for statement in (FILL_TOTALS, FILL_CALLS, FILL_CALL_TOTALS):
        op.execute(statement)
    op.drop_index("entries_time_index", "entries")
    _create_index("entries_credits_index", "entries", ["account_id", "time"], "kind = 'credit'")
    op.create_index("calls_request_id_index", "calls", ["request_id"])
    _create_index("calls_refused_index", "calls", ["id"], "error IS NOT NULL")
    _create_index("calls_account_id_refused_index", "calls", ["account_id", "id"], "error IS NOT NULL")


def _fill_charges(since: int, until: int) -> None:
    op.get_bind().execute(sa.text(FILL_CHARGES), {"since": since, "until": until})


def _create_index(name: str, table: str, columns: list[str], rows: str) -> None:
    only = sa.text(rows)
    op.create_index(name, table, columns, sqlite_where=only, postgresql_where=only)


def _create_tables() -> None:
    _create_table("daily_charges", ("account_id", "day", "key_id", "model"), CHARGES)
    _create_table("daily_charge_totals", ("day", "model", "shard"), CHARGES)
    _create_table("daily_calls", ("account_id", "day", "key_id"), CALLS)
    _create_table("daily_call_totals", ("day",), CALLS)


def _create_table(name: str, key: tuple[str, ...], sums: tuple[str, ...]) -> None:
    op.create_table(
        name,
        *(sa.Column(column, _type_of(column), nullable=False, autoincrement=False) for column in key),
        *(sa.Column(column, sa.BigInteger(), nullable=False) for column in sums),
        *(
            sa.ForeignKeyConstraint([column], [f"{column.removesuffix('_id')}s.id"], name=f"{name}_{column}_fkey")
            for column in key
            if column.endswith("_id")
        ),
        sa.PrimaryKeyConstraint(*key, name=f"{name}_pkey"),
        sqlite_with_rowid=False,
    )


def _type_of(column: str) -> sa.types.TypeEngine[int] | sa.types.TypeEngine[str]:
    if column == "model":
        return sa.String(length=300)
    return ID if column.endswith("_id") else sa.Integer()
