"""One-time links: for a new password, or for the account of an e-mail address."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "links",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="links_account_id_fkey"),
        sa.PrimaryKeyConstraint("hash", name="links_pkey"),
    )
