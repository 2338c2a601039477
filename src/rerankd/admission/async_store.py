"""The accounts' database for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store

from rerankd.errors import Unavailable

TURN_S = 3.0
"""How long a query waits while no earlier query is answered. After that, nobody knows when the database will answer."""

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStore:
    """Runs queries on threads of its own, so that they never wait for the work of calls."""

    def __init__(self, store: Store) -> None:
        self.keys, self.ledger, self.calls = store.keys, store.ledger, store.calls
        self.session_caller = store.session_caller
        self._database = store.database
        self._last_answer = 0.0
        self._threads = ThreadPoolExecutor(store.database.workers, thread_name_prefix="rerankd-accounts")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns or raises what a method of the store's parts does. Once begun, it runs to its end even if cancelled.

        Raises:
            Unavailable: the database answers no query, and this one was not begun.
        """
        job = self._threads.submit(lambda: self._run(lambda: function(*args, **kwargs)))
        answer = asyncio.wrap_future(job)
        try:
            while not answer.done():
                await asyncio.wait((answer,), timeout=TURN_S)
                is_stalled = time.monotonic() - self._last_answer >= TURN_S
                if not answer.done() and is_stalled and job.cancel():
                    raise Unavailable("The accounts' database does not answer. Try again in 5 s.", 5)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        return await answer

    def _run(self, query: Callable[[], T]) -> T:
        try:
            result = query()
        except Unavailable:
            raise
        except Exception:
            self._last_answer = time.monotonic()
            raise
        self._last_answer = time.monotonic()
        return result

    @property
    def trouble(self) -> str | None:
        """Why the last read or write failed; None if it succeeded."""
        return self._database.trouble

    def close(self) -> None:
        """Waits for the queries that have begun."""
        self._threads.shutdown()
