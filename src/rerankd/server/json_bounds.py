"""How much a JSON text will build, counted before it is parsed. Knows no field.

`json.loads` holds Python's lock from its first byte to its last: 16 MB of `[[],[],…]` are five million lists, and
nobody else is answered meanwhile. numpy counts in pieces, most of the time without the lock.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from rerankd.errors import NotJSON

MAX_VALUES = 1_000_000
"""Numbers, strings, lists and objects of one body: 100,000 documents, each an object of nine fields."""

MAX_DEPTH = 100
"""Lists and objects within each other. What is read may have to be written again, which takes more of the stack."""

PIECE = 1 << 20
"""Bytes."""

Bytes = npt.NDArray[np.uint8]


def check_bounds(text: str) -> None:
    """Before it is parsed.

    Raises:
        NotJSON: too many values, or nested too deeply.
    """
    opened = text.count("[") + text.count("{")
    if opened <= MAX_DEPTH and opened + text.count(",") < MAX_VALUES:
        return  # also if none of them stood in a string
    values, depth = _measure(text.encode("utf-8", "surrogatepass"))
    if depth > MAX_DEPTH:
        raise NotJSON(f"The JSON is nested too deeply: {MAX_DEPTH} lists and objects within each other are read.")
    if values > MAX_VALUES:
        raise NotJSON(
            f"The JSON has {values} values, and at most {MAX_VALUES} are read. Send the documents in several requests."
        )


@contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection while large JSON is parsed: it would look at all that is there for every few objects."""
    with _collector:
        yield


class _Collector:
    """Off while somebody parses, in any thread."""

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


def _measure(text: bytes) -> tuple[int, int]:
    """(values, depth): of values, those that come first in a list or object, or after a comma."""
    # In JSON, backslashes stand in strings only. Without those that are escaped and the quotes that they escape,
    # every quote that is left begins or ends a string.
    plain = np.frombuffer(text.replace(rb"\\", b"").replace(rb"\"", b""), np.uint8)
    values, depth, deepest, inside = 1, 0, 0, False
    for start in range(0, len(plain), PIECE):
        piece = plain[start : start + PIECE]
        structural, inside = _outside_strings(piece, inside)
        steps = _steps(structural)
        values += int(np.count_nonzero(structural == ord(","))) + int(np.count_nonzero(steps > 0))
        if len(steps):
            levels = depth + np.cumsum(steps, dtype=np.int64)
            depth, deepest = int(levels[-1]), max(deepest, int(levels.max()))
    return values, deepest


def _outside_strings(piece: Bytes, inside: bool) -> tuple[Bytes, bool]:
    """The bytes that stand in no string, and whether one is open at the end."""
    quotes = piece == ord('"')
    if len(quotes):
        quotes[0] ^= inside
    within = np.logical_xor.accumulate(quotes)
    return piece[~within], bool(within[-1]) if len(within) else inside


def _steps(structural: Bytes) -> npt.NDArray[np.int8]:
    """+1 where a list or object begins, −1 where one ends."""
    opens = (structural == ord("[")) | (structural == ord("{"))
    closes = (structural == ord("]")) | (structural == ord("}"))
    steps: npt.NDArray[np.int8] = np.subtract(opens, closes, dtype=np.int8)
    return steps
