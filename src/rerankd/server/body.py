"""Bytes → a dialect's parsed body. Every way in which a body can be bad ends in one of our errors."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from rerankd.apis.errors import BodyTimeout, BodyTooLarge, NotJSON, UnsupportedMedia
from rerankd.errors import InvalidRequest, Problem, TooManyDocuments
from rerankd.server.beside import beside
from rerankd.server.encodings import unpacker
from rerankd.server.held import share_of
from rerankd.server.json_bounds import check_bounds, collector_off

Body = TypeVar("Body", bound=BaseModel)

WINDOW_S = 30
"""Seconds in which MIN_WINDOW_BYTES of a body have to come, or its end."""

MIN_WINDOW_BYTES = 64 * 1024

LARGE = 64 * 1024
"""Bytes. A larger body is read in turns with others and parsed beside the server's loop."""

LOOKED_AT = 1 << 20
"""Characters that are searched at a time."""

MAX_PROBLEMS = 10
"""As many mistakes are told at once, as vLLM does."""

MAX_INPUT_CHARS = 100
"""Of a wrong value that is sent back."""


WANTED = "Input should be "
"""How pydantic begins."""

MEMBERS = ("str", "bool", "Explain")

JSONObject = dict[str, Any]


async def read_json(request: Request, max_mb: int, json_only: bool) -> tuple[JSONObject, tuple[str, ...]]:
    """The body's JSON object, and a warning for what in it is not used as sent.

    Args:
        json_only: refuse a body that is not declared as JSON.

    Raises:
        InvalidRequest: one of its kinds.
        ClientDisconnect: the caller hung up.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if json_only and media != "application/json":
        raise UnsupportedMedia("Unsupported Media Type: Only 'application/json' is allowed")
    pieces = await _read(request, max_mb)
    is_large = share_of(request.scope).size > LARGE
    return await beside(request.scope, _parse, pieces) if is_large else _parse(pieces)


def read_as(value: JSONObject, kind: type[Body], strict: bool) -> tuple[Body, tuple[str, ...]]:
    """The object as a body of this kind, and a warning that names the fields that such a body does not have.

    Args:
        kind: keeps them.
        strict: refuse them.

    Raises:
        InvalidRequest: with every mistake.
    """
    body = _validate(value, kind)
    ignored = [name[:100] for name in _unknown_fields(body, "")]
    if ignored and strict:
        problems = [Problem(name, "Unknown field", "extra_forbidden") for name in ignored[:MAX_PROBLEMS]]
        raise InvalidRequest(f"Unknown fields: {', '.join(ignored[:MAX_PROBLEMS])} (--strict).", problems)
    if ignored:
        more = f" and {len(ignored) - MAX_PROBLEMS} more" if len(ignored) > MAX_PROBLEMS else ""
        return body, (f"fields ignored: {', '.join(map(repr, ignored[:MAX_PROBLEMS]))}{more}",)
    return body, ()


def check_items(body: BaseModel, most: int) -> None:
    """Counts the items of the body's lists before each becomes a document.

    Raises:
        TooManyDocuments: a list is longer.
    """
    for name in type(body).model_fields:
        value = getattr(body, name)
        if isinstance(value, BaseModel):
            check_items(value, most)
        elif isinstance(value, list) and len(value) > most:
            raise TooManyDocuments(len(value), most)


async def _read(request: Request, max_mb: int) -> list[bytes]:
    """The body, unpacked, in pieces."""
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
    """The chunks that arrive, while they arrive fast enough."""
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
    """Parses a body. Empties the list: a large body stands in memory once."""
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
    """Whether an escape of a surrogate stands in the text. Looks in pieces, between which other threads run."""
    if "\\" not in text:  # one byte is found ten times as fast as three
        return False
    starts = range(0, len(text), LOOKED_AT)
    return any(text.find(escape, at, at + LOOKED_AT + 2) >= 0 for at in starts for escape in ("\\ud", "\\uD"))


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


def _validate(value: JSONObject, kind: type[Body]) -> Body:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        found = [
            Problem(_path(problem["loc"]), problem["msg"], problem["type"], _plain(problem["input"]))
            for problem in error.errors(include_url=False, include_context=False)
        ]
    problems = _told_once(found)
    problems += [Problem(name[:100], "Unknown field", "extra_forbidden") for name in _misspelt_fields(value, kind, "")]
    raise InvalidRequest("The body does not have the documented shape.", problems[:MAX_PROBLEMS])


def _told_once(found: Sequence[Problem]) -> list[Problem]:
    """One mistake for each place, though every member of a union tells its own: of those that got as far as an item
    of a list, the others' words about the list are left out."""
    inner = {problem.path.rpartition(".")[0] for problem in found}
    told: dict[str, Problem] = {}
    for problem in found:
        if problem.path in inner:
            continue
        if problem.kind == "too_long":
            problem = problem._replace(message=f"{problem.message}: send fewer, or several requests")
        first = told.setdefault(problem.path, problem)
        wanted = problem.message.removeprefix(WANTED)
        if problem.message.startswith(WANTED) and wanted not in first.message:
            told[problem.path] = first._replace(message=f"{first.message} or {wanted}")
    return list(told.values())


def _plain(value: Any) -> Any:
    """What a caller sent, where it is small enough to be sent back."""
    if isinstance(value, str):
        return value[:MAX_INPUT_CHARS]
    return value if isinstance(value, int | float) and abs(value) < 2**63 else None  # infinity is no JSON


def _path(location: Sequence[int | str]) -> str:
    """Where a mistake is, without the names that pydantic gives to the members of a union."""
    return ".".join(
        str(part) for part in location if isinstance(part, int) or (part not in MEMBERS and "[" not in part)
    )


def _misspelt_fields(value: dict[str, Any], kind: type[BaseModel], prefix: str) -> list[str]:
    """Keys, nested ones too, that a body of this kind does not have."""
    names = [f"{prefix}{name}" for name in value if name not in kind.model_fields]
    for name, field in kind.model_fields.items():
        nested = next((part for part in _members(field.annotation) if _is_model(part)), None)
        if nested is not None and isinstance(value.get(name), dict):
            names += _misspelt_fields(value[name], nested, f"{prefix}{name}.")
    return names


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_fields(body: BaseModel, prefix: str) -> list[str]:
    """The same of a body that fits."""
    names = [f"{prefix}{name}" for name in body.model_extra or {}]
    for name, value in body:
        if isinstance(value, BaseModel):
            names += _unknown_fields(value, f"{prefix}{name}.")
    return names
