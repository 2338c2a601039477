"""How often a call that was charged came again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "repeats",
        sa.Column("id", ID, nullable=False),
        sa.Column("idempotency_key", sa.LargeBinary(length=32), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="repeats_pkey"),
    )
    op.create_index("repeats_idempotency_key_index", "repeats", ["idempotency_key"])
    op.create_index("repeats_time_index", "repeats", ["time"])
