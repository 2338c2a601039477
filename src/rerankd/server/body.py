"""Bytes → a dialect's parsed body. Every way in which a body can be bad ends in one of our errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from rerankd.errors import BodyTimeout, BodyTooLarge, InvalidRequest, NotJSON, UnsupportedMedia
from rerankd.server.wire.dialect import Body

CHUNK_TIMEOUT_S = 30
"""Longest silence in the middle of a body."""

MAX_PROBLEMS = 10
"""As many mistakes are told at once, as vLLM does."""


async def read_body(request: Request, kind: type[Body], max_mb: int, json_only: bool) -> tuple[Body, tuple[str, ...]]:
    """The parsed body, and a warning for each thing in it that is not used as sent.

    Raises:
        InvalidRequest: one of its kinds.
        ClientDisconnect: the caller hung up.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if json_only and media != "application/json":
        raise UnsupportedMedia("Unsupported Media Type: Only 'application/json' is allowed")
    raw = await _read(request, max_mb)
    # Large bodies would hold up every other request for a second.
    parse = asyncio.to_thread(_parse, raw, kind) if len(raw) > 1_000_000 else None
    return await parse if parse else _parse(raw, kind)


async def _read(request: Request, max_mb: int) -> bytes:
    limit = max_mb * 1_000_000
    too_large = BodyTooLarge(f"The body has more than {max_mb} MB. Send the documents in several requests.")
    if int(request.headers.get("content-length") or 0) > limit:
        raise too_large
    raw = bytearray()
    stream = request.stream()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream, b""), CHUNK_TIMEOUT_S)
        except TimeoutError:
            raise BodyTimeout(
                f"The body stopped in the middle: nothing came for {CHUNK_TIMEOUT_S} s after {len(raw)} bytes."
            ) from None
        if not chunk:
            return bytes(raw)
        raw += chunk
        if len(raw) > limit:
            raise too_large


def _parse(raw: bytes, kind: type[Body]) -> tuple[Body, tuple[str, ...]]:
    if not raw.strip():
        raise InvalidRequest("The body is empty.", (("", "Field required"),))
    warnings: list[str] = []
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
        if rb"\ud" in raw.lower():
            clean = _replace_surrogates(value)
            if clean != value:
                warnings.append("lone surrogates were replaced by U+FFFD")
                value = clean
    except RecursionError:
        raise NotJSON("The JSON is nested too deeply.") from None
    except ValueError as error:
        raise NotJSON(f"The body is not JSON: {error}.") from None
    body = _validate(value, kind)
    if ignored := list(_unknown_fields(body, "")):
        warnings.append(f"fields ignored: {', '.join(ignored[:MAX_PROBLEMS])}")
    return body, tuple(warnings)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _replace_surrogates(value: Any) -> Any:
    """A lone surrogate is half a character: legal in JSON escapes, in no text."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


def _validate(value: Any, kind: type[Body]) -> Body:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = [
            (".".join(map(str, problem["loc"])), problem["msg"])
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    if isinstance(value, dict) and (unknown := [key for key in value if key not in kind.model_fields]):
        problems.append((unknown[0][:100], "Unknown field"))
    raise InvalidRequest("The body does not have the documented shape.", tuple(problems[:MAX_PROBLEMS]))


def _unknown_fields(body: BaseModel, prefix: str) -> list[str]:
    """Fields, nested ones too, that the dialect does not know."""
    names = [f"{prefix}{name[:100]!r}" for name in body.model_extra or {}]
    for name, value in body:
        if isinstance(value, BaseModel):
            names += _unknown_fields(value, f"{name}.")
    return names
