"""U1: every API in front of every other: the same order, the same scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from rerankd.apis.facts import ALL, ApiFacts
from rerankd.client.client import Client
from rerankd.client.dialects import DIALECTS
from rerankd.types import sigmoid
from support.dialect_replies import AROUND, logit_of
from support.routing import MODEL, Router, routing, upstream
from support.upstream_server import UpstreamServer

QUERY = "What is the capital of China?"
DOCUMENTS = [f"Document {number} says {number * 7919 % 101}." for number in range(40)]
"""More than one request of TEI's."""

ROUNDED = ("jina",)
"""APIs whose replies have eight decimal places."""

BACK = sorted(AROUND)


@pytest.fixture(scope="module", params=BACK)
def router(request: pytest.FixtureRequest) -> Iterator[Router]:
    with ExitStack() as stack:
        server = stack.enter_context(UpstreamServer(request.param))
        yield stack.enter_context(routing(upstream("behind", server)))


@pytest.mark.parametrize("front", sorted(DIALECTS))
def test_u1_every_api_in_front_of_every_other(front: str, router: Router) -> None:
    base = str(router.client.base_url).rstrip("/")
    path = _own_path(DIALECTS[front])
    with Client(f"{base}{path}", dialect=front) as client:  # type: ignore[arg-type]
        ranking = client.rank(QUERY, DOCUMENTS, model=MODEL)
    expected = {index: sigmoid(logit_of(QUERY, document)) for index, document in enumerate(DOCUMENTS)}
    places = 8 if front in ROUNDED else 15
    assert {one.index: round(one.score, places) for one in ranking} == pytest.approx(
        {index: round(score, places) for index, score in expected.items()}, abs=1e-12
    )
    assert [one.index for one in ranking] == sorted(expected, key=lambda index: (-expected[index], index))


def _own_path(facts: ApiFacts) -> str:
    """Where no other API answers."""
    paths = {path for path in facts.paths if "{" not in path}
    others = {path for one in ALL if one.name != facts.name for path in one.paths}
    return sorted(paths - others or paths, key=len)[-1]
