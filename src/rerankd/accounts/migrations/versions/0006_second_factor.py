"""The secret of an account's second factor, and the step of the code that was used last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("accounts", sa.Column("totp_secret", sa.String(length=32), nullable=True))
    op.add_column("accounts", sa.Column("totp_step", sa.BigInteger(), nullable=True))
