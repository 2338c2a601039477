"""Sentences that cannot be scored: the ranking stays, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.testing import FakeModel
from rerankd.types import Passages, RerankRequest

TEXT = "Cloves grow on Pemba. Bread is baked. "


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def scorer(model: FakeModel) -> Iterator[EngineScorer]:
    scorer = EngineScorer(Engine(model, max_queue=1), model)
    yield scorer
    model.gate.set()
    scorer.close()


def request(text: str = TEXT, deadline: float | None = None) -> RerankRequest:
    return RerankRequest(("cloves",), (text,), passages=Passages(highlight=True), deadline=deadline)


def test_a_full_queue_leaves_the_ranking(scorer: EngineScorer, model: FakeModel) -> None:
    prepared = scorer.prepare(request())
    ranking = asyncio.run(scorer.rank(prepared))
    model.gate.clear()
    other = scorer.submit(scorer.prepare(RerankRequest(("query",), ("document",))))
    for found in (asyncio.run(scorer.highlight(prepared, ranking)), scorer.with_sentences(prepared, ranking)):
        assert found.ranked == ranking.ranked and found.usage == ranking.usage
        assert found.warnings == ("highlight ignored: the queue is full",)
    model.gate.set()
    other.result(60)


def test_more_sentences_than_are_scored_are_told(scorer: EngineScorer) -> None:
    prepared = scorer.prepare(request(TEXT * 40))
    ranking = scorer.with_sentences(prepared, asyncio.run(scorer.rank(prepared)))
    assert len(ranking[0].passages[0].sentences) == 64
    assert ranking.warnings == ("1 best passages have more than 64 sentences: the others have no score",)


def test_sentences_after_the_deadline_are_told(scorer: EngineScorer) -> None:
    prepared = scorer.prepare(request())
    ranking = asyncio.run(scorer.rank(prepared))
    late = scorer.prepare(request(deadline=0.0))
    found = scorer.with_sentences(late, ranking)
    assert not found[0].passages[0].sentences and found.usage == ranking.usage
    assert found.warnings == ("2 of 2 sentences were not scored before the deadline",)
