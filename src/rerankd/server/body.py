"""Bytes → a JSON object: reads a body within its bounds, decompresses and parses it. Knows no field."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request

from rerankd.apis.errors import BodyTimeout, BodyTooLarge, NotJSON, UnsupportedMedia
from rerankd.errors import InvalidRequest, Problem
from rerankd.server.beside import beside
from rerankd.server.encodings import unpacker
from rerankd.server.held import share_of
from rerankd.server.json_bounds import check_bounds, collector_off
from rerankd.server.validation import JSONObject

WINDOW_S = 30
"""Seconds in which MIN_WINDOW_BYTES of a body, or its end, have to arrive."""

MIN_WINDOW_BYTES = 64 * 1024

LARGE = 64 * 1024
"""Bytes. A larger body is read in turns with others and parsed outside the event loop."""

PIECE_CHARS = 1 << 20
"""Characters that are searched at a time."""


async def read_json(request: Request, max_mb: int, json_only: bool) -> tuple[JSONObject, tuple[str, ...]]:
    """Reads the body's JSON object. The warnings name the replaced characters.

    Args:
        json_only: refuse a body that is not declared as JSON.

    Raises:
        InvalidRequest: see apis/errors.py.
        ClientDisconnect: the caller closed the connection.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if json_only and media != "application/json":
        raise UnsupportedMedia("Unsupported Media Type: Only 'application/json' is allowed")
    pieces = await _read(request, max_mb)
    is_large = share_of(request.scope).size > LARGE
    return await beside(request.scope, _parse, pieces) if is_large else _parse(pieces)


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


def _parse(pieces: list[bytes]) -> tuple[JSONObject, tuple[str, ...]]:
    """Parses a body. Empties the list, so that a large body is in memory once."""
    raw = b"".join(pieces)  # large pieces are joined without Python's lock
    pieces.clear()
    if not raw or raw.isspace():
        raise InvalidRequest("The body is empty.", [Problem("", "Field required", "missing")])
    try:
        text = _bounded_text(raw)
        with collector_off():
            value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise NotJSON(f"The body is not JSON: {error}.", error.pos) from None
    except UnicodeDecodeError as error:
        raise NotJSON(f"The body is not JSON: at byte {error.start} it is not {error.encoding}.", error.start) from None
    except ValueError:  # of int()
        raise NotJSON("The body is not JSON that can be read: a number has too many digits.") from None
    if not isinstance(value, dict):
        problem = Problem("", "Input should be a JSON object", "model_attributes_type")
        raise InvalidRequest("The body is not a JSON object.", [problem])
    clean = _replace_surrogates(value) if _may_hold_surrogates(text) else value
    if clean != value:
        return clean, ("lone surrogates were replaced by U+FFFD",)
    return value, ()


def _bounded_text(raw: bytes) -> str:
    """The body's text, whose JSON is within bounds."""
    encoding = json.detect_encoding(raw)
    if encoding == "utf-8":
        check_bounds(raw)
        return raw.decode(encoding)
    text = raw.decode(encoding)
    check_bounds(text.encode("utf-8", "surrogatepass"))
    return text


def _may_hold_surrogates(text: str) -> bool:
    """Whether the text contains an escape of a surrogate. Other threads run between the pieces."""
    if "\\" not in text:  # one byte is found ten times as fast as three
        return False
    starts = range(0, len(text), PIECE_CHARS)
    return any(text.find(escape, at, at + PIECE_CHARS + 2) >= 0 for at in starts for escape in ("\\ud", "\\uD"))


def _refuse_constant(name: str) -> Any:
    raise NotJSON(f"The body is not JSON: {name} is not a JSON number.")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NotJSON(f"The body is not JSON that can be read: the number {text[:40]} is too large.")
    return value


def _replace_surrogates(value: Any) -> Any:
    """A lone surrogate is half a character: legal in JSON escapes, in no text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value
