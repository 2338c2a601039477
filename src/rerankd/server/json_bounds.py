"""Counts the values of a JSON text before it is parsed. Knows no field.

`json.loads` holds Python's lock from its first byte to its last: 16 MB of `[[],[],…]` are five million lists, and
no other call is answered meanwhile. This counts in pieces, each a few milliseconds at most, between which others run.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

from rerankd.apis.errors import NotJSON

MAX_VALUES = 1_000_000
"""Numbers, strings, lists and objects of one body: 100,000 documents, each an object of nine fields."""

MAX_DEPTH = 100
"""Nested lists and objects. A reply may have to echo them, and writing needs more of the stack than reading."""

PIECE = 1 << 15
"""Bytes that are counted at a time."""

SMALL = 1 << 16
"""Bytes. A smaller text with few brackets is within the bounds."""

FLAT = 8
"""Levels of nesting that are removed a level at a time. In deeper pieces it is faster to look at each bracket."""

NOT_STRUCTURAL = bytes(set(range(256)) - set(b",[]{}"))

ONE_KIND = bytes.maketrans(b"{}", b"[]")

STEPS = tuple((byte == ord("[")) - (byte == ord("]")) for byte in range(256))
"""By byte: 1 where a list or object begins, -1 where one ends."""


def check_bounds(text: bytes) -> None:
    """Checks a text in UTF-8 before it is parsed. Stops reading at the first bound that it exceeds.

    Raises:
        NotJSON: too many values, or nested too deeply.
    """
    if len(text) <= SMALL and text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return  # even if all of them are structural
    for values, too_deep in measure(text):
        if too_deep:
            raise NotJSON(f"The JSON is nested too deeply: at most {MAX_DEPTH} lists and objects may be nested.")
        if values > MAX_VALUES:
            raise NotJSON(
                f"The JSON has more than {MAX_VALUES} values, the most that are read. Send the documents in several "
                "requests."
            )


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection while large JSON is parsed: a collection looks at all objects every few new ones."""
    with _collector:
        yield


class _Collector:
    """Off while any thread parses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            gc.disable()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                gc.enable()


_collector = _Collector()


def measure(text: bytes) -> Iterator[tuple[int, bool]]:
    """(values, whether any is nested deeper than `MAX_DEPTH`) of the text so far, after each piece.

    A value is counted at the beginning of a list or object, and after a comma.
    """
    values, depth, too_deep, inside, start = 1, 0, False, False, 0
    while start < len(text):
        end = _end_of_piece(text, start)
        structural, inside = _outside_strings(_without_escapes(text[start:end]), inside)
        values += len(structural) - structural.count(b"]") - structural.count(b"}")
        brackets = structural.translate(ONE_KIND, b",")
        too_deep = too_deep or _too_deep(brackets, depth)
        depth += 2 * brackets.count(b"[") - len(brackets)
        yield values, too_deep
        start = end


def _too_deep(brackets: bytes, depth: int) -> bool:
    """Whether a piece that begins `depth` deep exceeds `MAX_DEPTH`.

    All innermost pairs are removed at once, one level of every list that ends in the piece. The rest, `]]…[[…`, is
    deepest at one of its ends. Only where this bound does not decide is each bracket looked at, fifty times slower.
    """
    rest = brackets
    for levels in range(FLAT):
        if b"[]" not in rest:
            deepest = max(depth, depth + 2 * rest.count(b"[") - len(rest)) + levels
            if deepest <= MAX_DEPTH:
                return False
            break
        rest = rest.replace(b"[]", b"")
    return max(accumulate(map(STEPS.__getitem__, brackets), initial=depth)) > MAX_DEPTH


def _end_of_piece(text: bytes, start: int) -> int:
    """The end of the piece that begins at `start`: never between a backslash and the escaped character."""
    end = min(start + PIECE, len(text))
    backslashes = 0
    while end - backslashes > start and text[end - backslashes - 1] == ord("\\"):
        backslashes += 1
    return end + backslashes % 2


def _without_escapes(piece: bytes) -> bytes:
    """The piece without escaped backslashes and quotes: every quote that is left begins or ends a string.

    In JSON, backslashes occur in strings only.
    """
    return piece.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in piece else piece


def _outside_strings(piece: bytes, inside: bool) -> tuple[bytes, bool]:
    """The commas and brackets outside strings, and whether a string is open at the end."""
    parts = piece.split(b'"')
    outside = b"".join(parts[inside::2]).translate(None, NOT_STRUCTURAL)
    return outside, inside == len(parts) % 2
