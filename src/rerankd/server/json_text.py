"""JSON: the text of a body → an object, within bounds; a reply → its text. Knows no field and no API.

`json.loads` and `json.dumps` hold Python's lock from the first byte to the last: 16 MB of `[[],[],…]` are five million
lists, and the server answers no other call while it parses them. So this module counts a body before it parses it, in
pieces of a few milliseconds at most between which other calls run, and writes a reply in pieces.
"""

from __future__ import annotations

import gc
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, islice
from typing import Any

from starlette.responses import JSONResponse

from rerankd.apis.errors import NotJSON
from rerankd.errors import InvalidRequest, Problem
from rerankd.surrogates import without_surrogates

JSONObject = dict[str, Any]

MAX_VALUES = 1_000_000
"""Numbers, strings, lists and objects of one body: 100,000 documents, each an object of nine fields."""

MAX_DEPTH = 100
"""Nested lists and objects. A reply may have to echo them, and writing needs more of the stack than reading."""

MAX_REPEATED = 5
"""Repeated fields that a warning names."""

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

PIECE_CHARS = 1 << 20
"""Characters that are searched at a time."""

PIECE_ITEMS = 64
"""Items of a list that are written at a time."""


def parse(pieces: list[bytes]) -> tuple[JSONObject, tuple[str, ...]]:
    """The JSON object of a body, and warnings of replaced characters and repeated fields.

    Args:
        pieces: of the body. The list is emptied, so that a large body is in memory once.

    Raises:
        InvalidRequest: NotJSON, or another value than an object.
    """
    raw = b"".join(pieces)  # large pieces are joined without Python's lock
    pieces.clear()
    if not raw or raw.isspace():
        raise InvalidRequest("The body is empty.", [Problem("", "Field required: the body is empty", "missing")])
    try:
        text = _bounded_text(raw)
        with collector_off():
            objects = _Objects()
            value = json.loads(
                text, object_pairs_hook=objects.read, parse_constant=_refuse_constant, parse_float=_finite
            )
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
    replaced = ("lone surrogates were replaced by U+FFFD",) if clean != value else ()
    return clean, replaced + objects.warnings


class _Objects:
    """Makes the objects of a body, and keeps the names of fields that one object has twice."""

    def __init__(self) -> None:
        self._repeated: set[str] = set()

    def read(self, pairs: list[tuple[str, Any]]) -> JSONObject:
        """The last value of a repeated field counts, as in most parsers."""
        value = dict(pairs)
        if len(value) < len(pairs) and len(self._repeated) < MAX_REPEATED:
            names = Counter(name for name, _ in pairs)
            twice = (without_surrogates(name)[:100] for name, count in names.items() if count > 1)
            self._repeated.update(islice(twice, MAX_REPEATED))
        return value

    @property
    def warnings(self) -> tuple[str, ...]:
        """One for all repeated fields."""
        if not self._repeated:
            return ()
        named = ", ".join(map(repr, sorted(self._repeated)[:MAX_REPEATED]))
        return (f"fields repeated, the last value counts: {named}",)


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
        return without_surrogates(value)
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


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
