"""The accounts' database, asked from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store

from rerankd.errors import Unavailable

TURN_S = 3.0
"""How long a question waits for those before it. Then nobody knows when the database will answer."""

P = ParamSpec("P")
T = TypeVar("T")


class Accounts:
    """Threads of their own for what waits for the database, so that it never waits for the work of calls."""

    def __init__(self, store: Store) -> None:
        self.keys, self.ledger = store.keys, store.ledger
        self._database = store.database
        self._threads = ThreadPoolExecutor(store.database.workers, thread_name_prefix="rerankd-accounts")

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A method of `keys` or `ledger`: its result, or what it raises. Once begun it ends, whoever waits.

        Raises:
            Unavailable: its turn did not come in time; nothing was done.
        """
        job = self._threads.submit(function, *args, **kwargs)
        answer = asyncio.wrap_future(job)
        try:
            await asyncio.wait((answer,), timeout=TURN_S)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        if not answer.done() and job.cancel():
            raise Unavailable("The accounts' database is too busy. Try again in 5 s.", 5)
        return await answer

    @property
    def trouble(self) -> str | None:
        """Why the database could not be read or written when it was last tried; None where it could."""
        return self._database.trouble

    def close(self) -> None:
        """Waits for what was begun."""
        self._threads.shutdown()
