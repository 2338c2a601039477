"""Runs work outside the server's event loop. Knows nothing about the work.

Python runs one thread at a time. Many large calls at once would leave a small call one turn among all of theirs at
every step, so one thread does the work of all large calls, one call after the other, and rests between two pieces of
work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.types import Scope

from rerankd.server.held import HeldBody, share_of

LARGE_BODY = 256 * 1024
"""Bytes of a body; usual calls have a few hundred KB at most."""

SMALL_BODY = 4096
"""Bytes. The work for a body of this size takes less time than another thread takes to wake up, and no text of it waits
for the tokenizer's turn (`tokenising.SMALL_CHARS`)."""

MANY_DOCUMENTS = 1000
"""Documents of a call: as much work as a large body, however short they are."""

MAX_REST_S = 0.02
"""A large call has a handful of pieces of work, and takes seconds to score."""

Result = TypeVar("Result")

_large_calls = ThreadPoolExecutor(1, thread_name_prefix="rerankd-large")


class _Rests:
    """Runs work, and before it rests as long as the work before took: half of the time is left to small calls."""

    def __init__(self) -> None:
        self._until = 0.0

    def __call__(self, work: Callable[[], Result]) -> Result:
        time.sleep(max(0.0, self._until - time.monotonic()))
        started = time.monotonic()
        try:
            return work()
        finally:
            ended = time.monotonic()
            self._until = ended + min(ended - started, MAX_REST_S)


_after_a_rest = _Rests()  # for the only thread of _large_calls


async def beside(scope: Scope, work: Callable[[], Result]) -> Result:
    """Does the work of a request on another thread, unless the request is small.

    Args:
        scope: the request's; the size of its body and its number of documents choose the thread.
    """
    share = share_of(scope)
    if share.size <= SMALL_BODY:
        return work()
    if not _is_large(share):
        return await asyncio.to_thread(work)
    return await asyncio.get_running_loop().run_in_executor(_large_calls, _after_a_rest, work)


async def beside_if_large(scope: Scope, work: Callable[[], Result]) -> Result:
    """The same for work that takes less time than changing threads does, unless the call is large."""
    if not _is_large(share_of(scope)):
        return work()
    return await beside(scope, work)


def _is_large(share: HeldBody) -> bool:
    return share.size > LARGE_BODY or share.num_documents > MANY_DOCUMENTS
