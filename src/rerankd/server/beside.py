"""Work beside the server's loop. Knows no work.

Python runs one thread at a time. Many large calls at once would leave a small one a turn among all of theirs at every
step, so the work of large calls is done in one line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.types import Scope

from rerankd.server.held import share_of

LARGE_BODY = 256 * 1024
"""Bytes of a body; those of usual calls are a few hundred KB at most."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_line = ThreadPoolExecutor(1, thread_name_prefix="rerankd-large")


async def beside(
    scope: Scope, work: Callable[Parameters, Result], *args: Parameters.args, **options: Parameters.kwargs
) -> Result:
    """Does the work of a request on another thread.

    Args:
        scope: the request's; the size of its body tells which thread.
    """
    if share_of(scope).size <= LARGE_BODY:
        return await asyncio.to_thread(work, *args, **options)
    return await asyncio.get_running_loop().run_in_executor(_line, partial(work, *args, **options))
