"""Members of an account, invitations that make them, and who made a key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    _reference("accounts", "team_id")
    op.create_index("accounts_team_id_index", "accounts", ["team_id"])
    op.add_column("accounts", sa.Column("member_role", sa.String(length=20), nullable=False, server_default="owner"))
    _reference("invites", "account_id")
    op.add_column("invites", sa.Column("role", sa.String(length=20), nullable=True))
    _reference("keys", "made_by")


def _reference(table: str, column: str) -> None:
    """Adds a column that names an account. Written out, since Alembic adds the reference later, as SQLite cannot."""
    kind = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    reference = f"CONSTRAINT {table}_{column}_fkey REFERENCES accounts (id)"
    op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind} {reference}")
