"""Further accounts that a person acts in, and the one that a session has chosen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "memberships",
        sa.Column("account_id", ID, nullable=False, autoincrement=False),
        sa.Column("person_id", ID, nullable=False, autoincrement=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("joined", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="memberships_account_id_fkey"),
        sa.ForeignKeyConstraint(["person_id"], ["accounts.id"], name="memberships_person_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "person_id", name="memberships_pkey"),
    )
    op.create_index("memberships_person_id_index", "memberships", ["person_id"])
    # Written out, since Alembic adds the reference later, as SQLite cannot.
    kind = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    reference = "CONSTRAINT sessions_payer_id_fkey REFERENCES accounts (id)"
    op.execute(f"ALTER TABLE sessions ADD COLUMN payer_id {kind} {reference}")
    op.execute(
        "UPDATE sessions SET payer_id = "
        "(SELECT COALESCE(accounts.team_id, accounts.id) FROM accounts WHERE accounts.id = sessions.account_id)"
    )
