"""The routes of an application."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Route = tuple[str, str]
"""Method and path."""


def routes_of(routes: Sequence[Any]) -> Iterator[Route]:
    """(method, path) of everything that answers, below included routers too."""
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            yield from routes_of(list(route.effective_route_contexts()))
        else:
            yield from ((method, route.path) for method in getattr(route, "methods", {"GET"}) - {"HEAD"})
