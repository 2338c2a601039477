"""Recovery codes of second factors, and when an account was deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "recovery_codes",
        sa.Column("account_id", ID, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="recovery_codes_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "hash", name="recovery_codes_pkey"),
    )
    op.add_column("accounts", sa.Column("deleted", sa.BigInteger(), nullable=True))
