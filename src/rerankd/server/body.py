"""Reads the bytes of a body within bounds of size and time, and decompresses them. Knows no field."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

from starlette.requests import Request

from rerankd.apis.errors import BodyTimeout, BodyTooLarge, UnsupportedMedia
from rerankd.server.beside import beside
from rerankd.server.encodings import unpacker
from rerankd.server.held import share_of
from rerankd.server.json_text import JSONObject, parse

WINDOW_S = 30
"""Seconds in which MIN_WINDOW_BYTES of a body, or its end, have to arrive."""

MIN_WINDOW_BYTES = 64 * 1024

LARGE = 64 * 1024
"""Bytes. A larger body is read in turns with others and parsed outside the event loop."""


async def read_json(request: Request, max_mb: int, json_only: bool) -> tuple[JSONObject, tuple[str, ...]]:
    """Reads the body's JSON object. The warnings name the replaced characters.

    Args:
        json_only: refuse a body that is not declared as JSON.

    Raises:
        InvalidRequest: see apis/errors.py and `json_text.parse`.
        ClientDisconnect: the caller closed the connection.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if json_only and media != "application/json":
        raise UnsupportedMedia("Unsupported Media Type: Only 'application/json' is allowed")
    pieces = await _read(request, max_mb)
    is_large = share_of(request.scope).size > LARGE
    return await beside(request.scope, partial(parse, pieces)) if is_large else parse(pieces)


async def _read(request: Request, max_mb: int) -> list[bytes]:
    """The decompressed body in pieces."""
    limit, share = max_mb * 1_000_000, share_of(request.scope)
    packed = unpacker(request.headers.get("content-encoding", ""))
    promised = int(request.headers.get("content-length") or 0)
    if promised > limit:
        raise _too_large(max_mb)
    share.expect(promised)
    pieces: list[bytes] = []
    size = received = 0
    async for chunk in _chunks(request):
        received += len(chunk)
        for piece in packed.feed(chunk) if packed else (chunk,):
            size += len(piece)
            if max(size, received) > limit:
                raise _too_large(max_mb)
            share.add(len(piece))
            pieces.append(piece)
            if size > LARGE:
                await share.take_turn()  # a small chunk may unpack to a large one
    if packed:
        packed.finish()
    return pieces


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The chunks of the body. Ends the call if they arrive too slowly."""
    stream = request.stream()
    received, due, window = 0, time.monotonic() + WINDOW_S, 0
    while True:
        try:
            async with asyncio.timeout(due - time.monotonic()):
                chunk = await anext(stream, b"")
        except TimeoutError:
            raise BodyTimeout(
                f"The body stopped in the middle, or came too slowly: {window} bytes in {WINDOW_S} s, "
                f"after {received} bytes. Send at least {MIN_WINDOW_BYTES} bytes in {WINDOW_S} s, or smaller requests."
            ) from None
        if not chunk:
            return
        yield chunk
        received, window = received + len(chunk), window + len(chunk)
        if window >= MIN_WINDOW_BYTES:
            due, window = time.monotonic() + WINDOW_S, 0


def _too_large(max_mb: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body has more than {max_mb} MB. Send the documents in several requests.")
