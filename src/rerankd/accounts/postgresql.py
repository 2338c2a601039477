"""A connection to PostgreSQL on which nobody waits without end. Imported only where PostgreSQL is used."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

ABANDONED_S = 30
"""After this time the server ends a transaction whose client says nothing more."""

MARGIN_S = 1.0
"""The server is to end a statement first: then the connection can still be used."""


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up a server that does not answer, as one that was stopped, or that a network lost."""

    patience_s = 10.0

    def limit(self, seconds: float) -> None:
        """How long each statement, with its wait for locks, may take from now on."""
        limits = {"statement_timeout": seconds, "lock_timeout": seconds}
        limits["idle_in_transaction_session_timeout"] = ABANDONED_S
        for name, value in limits.items():
            self.execute("SELECT set_config(%s, %s, false)", (name, f"{value * 1000:.0f}"))
        self.commit()
        self.patience_s = seconds + MARGIN_S

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """As psycopg's own, for a bounded time."""
        try:
            return super().wait(_until(gen, time.monotonic() + self.patience_s), *args, **kwargs)
        except _Silence:
            self.close()
            raise psycopg.OperationalError("the server does not answer") from None


class _Silence(Exception):
    pass


def _until(gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    """What waits for a socket, and is woken every tenth of a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                gen.close()
                raise _Silence
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


def connection_options(seconds: float) -> dict[str, str]:
    """libpq's: for connecting, and for noticing a network that is gone."""
    return {
        "connect_timeout": f"{seconds:.0f}",
        "keepalives": "1",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": f"{seconds * 1000:.0f}",
    }
