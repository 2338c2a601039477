"""The accounts' database, asked from an event loop."""

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
"""How long a question waits while none before it is answered. Then nobody knows when the database will answer."""

P = ParamSpec("P")
T = TypeVar("T")


class Accounts:
    """Threads of their own for what waits for the database, so that it never waits for the work of calls."""

    def __init__(self, store: Store) -> None:
        self.keys, self.ledger = store.keys, store.ledger
        self._database = store.database
        self._answered = 0.0  # when the database last did
        self._threads = ThreadPoolExecutor(store.database.workers, thread_name_prefix="rerankd-accounts")

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A method of `keys` or `ledger`: its result, or what it raises. Once begun it ends, whoever waits.

        Raises:
            Unavailable: the database answers nobody, and its turn did not come; nothing was done.
        """
        job = self._threads.submit(lambda: self._answer(lambda: function(*args, **kwargs)))
        answer = asyncio.wrap_future(job)
        try:
            while not answer.done():
                await asyncio.wait((answer,), timeout=TURN_S)
                stands_still = time.monotonic() - self._answered >= TURN_S
                if not answer.done() and stands_still and job.cancel():
                    raise Unavailable("The accounts' database does not answer. Try again in 5 s.", 5)
        except asyncio.CancelledError:
            answer.cancel()
            raise
        return await answer

    def _answer(self, question: Callable[[], T]) -> T:
        try:
            result = question()
        except Unavailable:
            raise
        except Exception:
            self._answered = time.monotonic()
            raise
        self._answered = time.monotonic()
        return result

    @property
    def trouble(self) -> str | None:
        """Why the database could not be read or written when it was last tried; None where it could."""
        return self._database.trouble

    def close(self) -> None:
        """Waits for what was begun."""
        self._threads.shutdown()
