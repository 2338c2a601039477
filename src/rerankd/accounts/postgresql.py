"""A PostgreSQL connection with timeouts. Imported only where PostgreSQL is used."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

ABANDONED_S = 30
"""The server ends a transaction after this time without a statement from its client."""

MARGIN_S = 1.0
"""Added to the client's timeout, so that the server times out first: the connection then stays usable."""


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up on a server that does not answer: one that is stopped or unreachable."""

    timeout_s = 10.0

    def limit(self, seconds: float) -> None:
        """Sets the timeout of each statement, with its wait for locks."""
        limits = {"statement_timeout": seconds, "lock_timeout": seconds}
        limits["idle_in_transaction_session_timeout"] = ABANDONED_S
        for name, value in limits.items():
            self.execute("SELECT set_config(%s, %s, false)", (name, f"{value * 1000:.0f}"))
        self.commit()
        self.timeout_s = seconds + MARGIN_S

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """psycopg's own, with a timeout."""
        try:
            return super().wait(_until(gen, time.monotonic() + self.timeout_s), *args, **kwargs)
        except _Silence:
            self.close()
            raise psycopg.OperationalError("the server does not answer") from None


class _Silence(Exception):
    pass


def _until(gen: Generator[Any, Any, Any], deadline: float) -> Generator[Any, Any, Any]:
    """Passes a generator on that waits for a socket, until a deadline. psycopg resumes it every 0.1 s."""
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
    """libpq's options: the connect timeout, and keepalives that detect a lost network."""
    return {
        "connect_timeout": f"{seconds:.0f}",
        "keepalives": "1",
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": f"{seconds * 1000:.0f}",
    }
