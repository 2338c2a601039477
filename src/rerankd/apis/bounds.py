"""Bounds that hold on every surface: how many fields may name a document's text, and how urgent a call may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from rerankd.apis.base import ApiSettings, Bounded

MAX_RANK_FIELDS = 100

RankFields = Annotated[list[str], Bounded(MAX_RANK_FIELDS)]

MAX_PRIORITY = 999
"""As Cohere's; the lowest one is its negative."""

MAX_NAMED = 5


def heard_priority(asked: int | None, settings: ApiSettings) -> tuple[int, tuple[str, ...]]:
    """The priority that a call gets, and a warning where it asked for another one.

    Everybody may step back behind the others. To overtake them takes an operator who trusts the callers.
    """
    lowest = -MAX_PRIORITY if settings.trust_priority else 0
    priority = min(max(asked or 0, lowest), MAX_PRIORITY)
    if asked is None or asked == priority:
        return priority, ()
    return priority, (f"priority taken as {priority}: from {lowest} to {MAX_PRIORITY} are heard here",)


def ignored_keys(field: str, keys: Iterable[str]) -> tuple[str, ...]:
    """A warning for each of the first keys of an object that are of no effect, and one that counts the rest."""
    listed = list(keys)
    named = tuple(f"{field}.{key[:100]} ignored" for key in listed[:MAX_NAMED])
    rest = len(listed) - MAX_NAMED
    return (*named, f"{rest} more keys of {field} ignored") if rest > 0 else named
