"""When the owner of an account was warned that its credit runs low."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("warned", sa.BigInteger(), nullable=True))
