"""Keeps what becomes of each call, for the list of calls of its account.

No call waits for it, and no charge depends on it. The records wait in memory and are written together, every second.
After a kill, those of the last second are missing; the ledger misses none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from rerankd.accounts.call_record import CallRecord
from rerankd.accounts.decision import Charge
from rerankd.admission.async_store import AsyncStore
from rerankd.errors import (
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    OutOfCredit,
    PromptTooLong,
    RerankdError,
    TooManyDocuments,
    TooManyTokens,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
)

if TYPE_CHECKING:  # SQLAlchemy is loaded only where accounts are on
    from rerankd.accounts.keys import Caller
    from rerankd.server.metrics.calls import Work

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
DELETE_EVERY_S = 3600.0
BATCH = 1000
MAX_WAITING = 20_000
"""Records in memory while the database does not answer; newer ones are dropped."""

_QUOTED = (TooManyDocuments, TooManyTokens, PromptTooLong, OutOfCredit, Forbidden, ModelNotFound, Unauthorized)
_WITHOUT_TEXTS = (*_QUOTED, Unavailable, UpstreamFailed)
"""Errors whose sentence holds no text of a query or document."""


class CallLog:
    """The records of one server.

    Args:
        days: how long a call stays in the list.
    """

    def __init__(self, accounts: AsyncStore, days: int) -> None:
        self._accounts = accounts
        self._kept = timedelta(days=days)
        self._waiting: deque[CallRecord] = deque()
        self._dropped = 0
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to write, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Writes the records that wait, and ends."""
        self._closing.set()
        if self._task is not None:
            await self._task

    def add(
        self,
        caller: Caller,
        request_id: str,
        api: str,
        status: int,
        seconds: float,
        model: str | None,
        outcome: Exception | Work | None,
        charge: Charge | None,
    ) -> None:
        """Keeps a call that ended. outcome: the error of a call that was not answered, or what was ranked."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        now, key = datetime.now(UTC), (caller.account_id, caller.key_id)
        ended = (now, *key, request_id, api, status, round(1000 * seconds), model)
        if isinstance(outcome, Exception):
            record = CallRecord(*ended, error=type(outcome).__name__, reason=reason_of(outcome))
        else:
            documents, tokens = (outcome.documents, outcome.usage.text_tokens) if outcome else (None, None)
            record = CallRecord(*ended, documents, tokens, charge.cost if charge else 0)
        self._waiting.append(record)

    async def _run(self) -> None:
        delete_at = 0.0
        while not self._closing.is_set():
            # Not cancelled to end it: a batch would then be lost, or written twice.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), WRITE_EVERY_S)
            await self._write()
            if time.monotonic() >= delete_at and await self._delete_old():
                delete_at = time.monotonic() + DELETE_EVERY_S

    async def _write(self) -> None:
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
            try:
                await self._accounts.run(self._accounts.calls.add, batch)
            except Unavailable:  # the database logged why
                return
            except Exception:
                logger.exception("%d calls cannot be listed: this is a bug", len(batch))
            for _ in batch:
                self._waiting.popleft()
        if self._dropped:
            logger.warning("The list of calls lacks %d calls, since the database did not answer", self._dropped)
            self._dropped = 0

    async def _delete_old(self) -> bool:
        """Returns whether no old call is left."""
        try:
            deleted = await self._accounts.run(self._accounts.calls.delete_until, datetime.now(UTC) - self._kept)
        except Unavailable:
            return False
        return not deleted


def reason_of(error: Exception) -> str:
    """Why a call was refused, without a text of the caller."""
    if isinstance(error, _WITHOUT_TEXTS):
        return str(error)
    if isinstance(error, InvalidRequest):
        paths = dict.fromkeys(problem.path or "the body" for problem in error.problems)
        return f"Not valid: {', '.join(paths)[:200]}." if paths else "The request is not valid."
    return str(error) if isinstance(error, RerankdError) else "The caller closed the connection before the reply."
