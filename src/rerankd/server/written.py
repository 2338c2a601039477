"""JSON replies that can always be written, whatever a caller's own object in them holds. Knows no dialect."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import JSONResponse

from rerankd.surrogates import without_surrogates

MAX_DEPTH = 100


class WrittenJSON(JSONResponse):
    """A JSON reply. What JSON cannot say becomes null: numbers that are not finite, and what is nested too deeply.

    Documents are echoed with all their keys, so such values come from callers; their ranking must not be lost by it.
    """

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except (ValueError, RecursionError):
            return super().render(_writable(content, MAX_DEPTH))


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
