"""The query of a list in the address of its page. A parameter that makes no sense counts as missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from starlette.requests import Request

ON_A_PAGE = 50

MAX_ID = 10**18
"""Larger numbers fit no column of a database."""


class Listed(Protocol):
    """A row of a list that has the newest first."""

    @property
    def id(self) -> int: ...


Row = TypeVar("Row", bound=Listed)


def number_of(request: Request, name: str, largest: int = MAX_ID) -> int | None:
    """A whole number from 0 to `largest`."""
    text = request.query_params.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 and int(text) <= largest else None


def text_of(request: Request, name: str, most: int = 300) -> str:
    """The first characters of a text; empty if it is missing."""
    return request.query_params.get(name, "").strip()[:most]


def page_of(found: Sequence[Row]) -> tuple[Sequence[Row], int | None]:
    """(the rows of a page, the id before which the next page begins; None on the last page).

    Args:
        found: the rows of a page, and one more where there is one.
    """
    shown = found[:ON_A_PAGE]
    return shown, shown[-1].id if len(found) > len(shown) else None
