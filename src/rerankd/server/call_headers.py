"""Reads the headers of a call: its id, its deadline, the servers that it came through. Knows no API."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rerankd.apis.facts import DEADLINE_HEADER
from rerankd.errors import InvalidRequest

GIVEN_ID = re.compile(r"[\x21-\x7e]{1,200}")


def given_id(text: str | None) -> str | None:
    """The caller's own id for a request, if a header can carry it."""
    return text if text and GIVEN_ID.fullmatch(text) else None


def deadline_ms_of(headers: Mapping[str, str]) -> int | None:
    """The deadline in milliseconds, 1 to 9,999,999; None without the header.

    Raises:
        InvalidRequest: it is not a number of milliseconds.
    """
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,6}", text.strip(), re.ASCII):
        raise InvalidRequest(f"The header {DEADLINE_HEADER} must be a whole number of milliseconds.")
    return int(text)


def hops(headers: Mapping[str, str]) -> int:
    """The number of servers that passed the call on; 0 for a header that is not a number."""
    text = headers.get("x-rerankd-hop")
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 4 else 0
