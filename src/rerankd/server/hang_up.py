"""Frees the work of a caller who hangs up before the reply. Knows no API."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import ClientDisconnect, Request

from rerankd.types import Ranking


async def unless_gone(ranking: Coroutine[Any, Any, Ranking], request: Request) -> Ranking:
    """Waits for a ranking; frees its work if the caller hangs up first.

    Raises:
        ClientDisconnect: it did.
    """
    gone = asyncio.ensure_future(_disconnected(request))
    result = asyncio.ensure_future(ranking)
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise ClientDisconnect
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
