"""Accounts, keys, quotas, and the ledger, whose entries can be neither changed nor deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

APPEND_ONLY = {
    "sqlite": (
        "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END",
        "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries "
        "BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$",
        "CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entries "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
    ),
}


def upgrade() -> None:
    _create_accounts()
    _create_invites()
    _create_keys()
    _create_quotas()
    _create_sessions()
    _create_entries()
    _create_reservations()
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", ID, nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("password", sa.String(length=200), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'user')", name="accounts_role_check"),
        sa.CheckConstraint("reserved >= 0", name="accounts_reserved_check"),
        sa.PrimaryKeyConstraint("id", name="accounts_pkey"),
        sa.UniqueConstraint("email", name="accounts_email_key"),
    )


def _create_invites() -> None:
    op.create_table(
        "invites",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("created_by", ID, nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used_by", ID, nullable=True),
        sa.ForeignKeyConstraint(["created_by"], ["accounts.id"], name="invites_created_by_fkey"),
        sa.ForeignKeyConstraint(["used_by"], ["accounts.id"], name="invites_used_by_fkey"),
        sa.PrimaryKeyConstraint("hash", name="invites_pkey"),
    )


def _create_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("hint", sa.String(length=20), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=True),
        sa.Column("revoked", sa.BigInteger(), nullable=True),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("last_used", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="keys_account_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="keys_pkey"),
        sa.UniqueConstraint("hash", name="keys_hash_key"),
    )
    op.create_index("keys_account_id_index", "keys", ["account_id"])


def _create_quotas() -> None:
    op.create_table(
        "quotas",
        sa.Column("account_id", ID, nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("reserved >= 0", name="quotas_reserved_check"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="quotas_account_id_fkey"),
        sa.PrimaryKeyConstraint("account_id", "model", name="quotas_pkey"),
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="sessions_account_id_fkey"),
        sa.PrimaryKeyConstraint("hash", name="sessions_pkey"),
    )
    op.create_index("sessions_account_id_index", "sessions", ["account_id"])
    op.create_index("sessions_expires_index", "sessions", ["expires"])


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("id", ID, nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("balance_after", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("made_by", ID, nullable=True),
        sa.Column("key_id", ID, nullable=True),
        sa.Column("model", sa.String(length=300), nullable=True),
        sa.Column("dialect", sa.String(length=50), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("free_tokens", sa.BigInteger(), nullable=False),
        sa.Column("billed_tokens", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.String(length=40), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("idempotency_key", sa.LargeBinary(length=32), nullable=True),
        sa.Column("occurrence", sa.Integer(), nullable=True),
        sa.CheckConstraint("kind IN ('charge', 'credit')", name="entries_kind_check"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="entries_account_id_fkey"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="entries_key_id_fkey"),
        sa.ForeignKeyConstraint(["made_by"], ["accounts.id"], name="entries_made_by_fkey"),
        sa.PrimaryKeyConstraint("id", name="entries_pkey"),
        sa.UniqueConstraint("idempotency_key", "occurrence", name="entries_idempotency_key_key"),
    )
    op.create_index("entries_account_id_time_index", "entries", ["account_id", "time"])
    op.create_index("entries_time_index", "entries", ["time"])


def _create_reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("account_id", ID, nullable=False),
        sa.Column("key_id", ID, nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("model", sa.String(length=300), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.Column("free_tokens", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="reservations_account_id_fkey"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="reservations_key_id_fkey"),
        sa.PrimaryKeyConstraint("id", name="reservations_pkey"),
    )
