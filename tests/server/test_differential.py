"""The same pairs through every dialect have the same logits, whatever the texts are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.server import Server
from support.surfaces import FOLDERS, ONE_EACH, Surface

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).map(str.strip).filter(bool)
"""Infinity strips what is around a text, as it documents."""


def logits(server: Server, surface: Surface, query: str, documents: list[str], instruct: str) -> list[float]:
    """By index, from the explanations."""
    response = server.post(surface.path, surface.body(query, documents, instruct=instruct, explain=True))
    assert response.status_code == 200, response.text[:1000]
    found = {row["index"]: row["explain"]["logit"] for row in rows(response.json())}
    return [found[index] for index in range(len(documents))]


def rows(value: Any) -> Iterator[dict[str, Any]]:
    """The results, wherever a reply has them."""
    if isinstance(value, dict) and "explain" in value:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from rows(part)


@pytest.mark.slow
def test_every_dialect_scores_alike(qwen_server: Server) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=4), instruct=TEXTS)
    def try_it(query: str, documents: list[str], instruct: str) -> None:
        expected = logits(qwen_server, ONE_EACH[0], query, documents, instruct)
        others: list[Surface] = [*ONE_EACH[1:], *FOLDERS]
        for surface in others:
            assert logits(qwen_server, surface, query, documents, instruct) == expected, surface

    try_it()
