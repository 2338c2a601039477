"""JSON replies, written in pieces, for any content of documents that a caller sent. Knows no API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse

from rerankd.surrogates import without_surrogates

MAX_DEPTH = 100

PIECE_ITEMS = 64
"""Items of a list that are written at a time: Python's encoder lets no other thread run before it is done."""


class WrittenJSON(JSONResponse):
    """A JSON reply. What JSON cannot express becomes null: numbers that are not finite, and values nested too deeply.

    A reply echoes documents with all their keys, so such values come from callers; they must not cost the ranking.
    """

    def render(self, content: Any) -> bytes:
        try:
            return b"".join(pieces(content))
        except (ValueError, RecursionError):
            return b"".join(pieces(_writable(content, MAX_DEPTH)))


def pieces(value: Any) -> Iterator[bytes]:
    """The JSON of a value, which is compact and in UTF-8, in pieces between which other threads run."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        yield b"{"
        for place, (key, item) in enumerate(value.items()):
            yield b"," + _encode(key) + b":" if place else _encode(key) + b":"
            yield from pieces(item)
        yield b"}"
    elif isinstance(value, list) and len(value) > PIECE_ITEMS:
        for start in range(0, len(value), PIECE_ITEMS):
            yield b"," if start else b"["
            yield _encode(value[start : start + PIECE_ITEMS])[1:-1]
        yield b"]"
    else:
        yield _encode(value)


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _writable(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return without_surrogates(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return None
    if isinstance(value, list):
        return [_writable(item, depth - 1) for item in value]
    return {without_surrogates(str(key)): _writable(item, depth - 1) for key, item in value.items()}
