"""What administrators did. It can be neither changed nor deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER admin_log_no_update BEFORE UPDATE ON admin_log "
        "BEGIN SELECT RAISE(ABORT, 'admin_log is append-only'); END",
        "CREATE TRIGGER admin_log_no_delete BEFORE DELETE ON admin_log "
        "BEGIN SELECT RAISE(ABORT, 'admin_log is append-only'); END",
    ),
    "postgresql": (  # the function is that of 0001
        "CREATE TRIGGER admin_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "admin_log",
        sa.Column("id", ID, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("made_by", ID, nullable=True),
        sa.Column("action", sa.String(length=50), nullable=False),
        sa.Column("account_id", ID, nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["made_by"], ["accounts.id"], name="admin_log_made_by_fkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="admin_log_account_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="admin_log_pkey"),
    )
    op.create_index("admin_log_account_id_index", "admin_log", ["account_id"])
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
