"""Run by Alembic, inside the transaction that `Database.upgrade` opened."""

from __future__ import annotations

from alembic import context

from rerankd.accounts.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
