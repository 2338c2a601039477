"""The accounts' database, asked from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class Accounts:
    """Threads of their own for what waits for the database, so that it never waits for the work of calls."""

    def __init__(self, store: Store) -> None:
        self.keys, self.ledger = store.keys, store.ledger
        self._threads = ThreadPoolExecutor(store.database.workers, thread_name_prefix="rerankd-accounts")

    async def ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A method of `keys` or `ledger`: its result, or what it raises. Once begun it ends, whoever waits."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Waits for what was begun."""
        self._threads.shutdown()
