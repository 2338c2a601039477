"""The budget of a key, and what its calls cost in each month."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

CHARGES_BY_DAY = sa.text(
    "SELECT key_id, day, SUM(cost) AS spent FROM daily_charges WHERE cost <> 0 GROUP BY key_id, day"
)

# A trigger, so that charges of a server of the version before count, too, while servers are replaced one by one.
ADD = "ON CONFLICT (key_id, month) DO UPDATE SET spent = months.spent + excluded.spent"
COUNT_CHARGES = {
    "sqlite": (
        "CREATE TRIGGER entries_count_month AFTER INSERT ON entries WHEN NEW.kind = 'charge' AND NEW.amount <> 0 "
        "BEGIN INSERT INTO months (key_id, month, spent) VALUES (NEW.key_id, "
        f"CAST(strftime('%Y%m', NEW.time / 1000000, 'unixepoch') AS INTEGER), -NEW.amount) {ADD}; END",
    ),
    "postgresql": (
        "CREATE FUNCTION count_month() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO months (key_id, month, spent) VALUES (NEW.key_id, "
        "CAST(to_char(to_timestamp(NEW.time / 1000000) AT TIME ZONE 'UTC', 'YYYYMM') AS integer), -NEW.amount) "
        f"{ADD}; RETURN NULL; END $$",
        "CREATE TRIGGER entries_count_month AFTER INSERT ON entries FOR EACH ROW "
        "WHEN (NEW.kind = 'charge' AND NEW.amount <> 0) EXECUTE FUNCTION count_month()",
    ),
}


def upgrade() -> None:
    database = op.get_bind()
    if database.dialect.name == "postgresql":  # every charge locks its account first: none runs until this has ended
        op.execute("LOCK TABLE accounts IN EXCLUSIVE MODE")
    op.add_column("keys", sa.Column("budget", sa.BigInteger(), nullable=True))
    months = op.create_table(
        "months",
        sa.Column("key_id", ID, nullable=False),
        sa.Column("month", sa.Integer(), nullable=False),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("warned", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="months_key_id_fkey"),
        sa.PrimaryKeyConstraint("key_id", "month", name="months_pkey"),
    )
    for statement in COUNT_CHARGES[database.dialect.name]:
        op.execute(statement)
    spent: Counter[tuple[int, int]] = Counter()
    for row in database.execute(CHARGES_BY_DAY):
        day = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=row.day)
        spent[row.key_id, day.year * 100 + day.month] += int(row.spent)
    if spent:
        rows = [{"key_id": key, "month": month, "spent": cost} for (key, month), cost in spent.items()]
        database.execute(sa.insert(months), rows)
