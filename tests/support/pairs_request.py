"""A request from pairs, as the tests of prompts and models think of it."""

from __future__ import annotations

from collections.abc import Iterable

from rerankd.types import Limits, RerankRequest

NO_LIMITS = Limits()


def pairs_request(pairs: Iterable[tuple[str, str]], instruct: str = "", limits: Limits = NO_LIMITS) -> RerankRequest:
    """(query, document) pairs, each with a query of its own."""
    queries, documents = zip(*pairs, strict=True)
    return RerankRequest(queries, documents, instruct, limits=limits)
