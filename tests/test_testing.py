"""The fakes that users have for their own tests."""

from __future__ import annotations

import asyncio

import pytest

from rerankd import AsyncRanker, InvalidRequest, Ranker, RemoteTimeout
from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.testing import Call, FakeModel, FakeRanker
from rerankd.types import RerankRequest

QUERY = "capital of China?"
DOCUMENTS = ("Gravity is a force.", "Beijing is the capital of China.")


def best(ranker: Ranker) -> str | None:
    return ranker.rank(QUERY, DOCUMENTS, top_n=1)[0].document


async def abest(ranker: AsyncRanker) -> str | None:
    return (await ranker.arank(QUERY, DOCUMENTS, top_n=1))[0].document


def test_a_fake_ranker_ranks_by_shared_words_and_keeps_the_calls() -> None:
    ranker = FakeRanker()
    assert best(ranker) == asyncio.run(abest(ranker)) == DOCUMENTS[1]
    assert ranker.calls == [Call(QUERY, DOCUMENTS, 1, None)] * 2


def test_a_fake_ranker_takes_scores_and_errors() -> None:
    ranking = FakeRanker(lambda query, document: len(document) / 100).rank(QUERY, [*DOCUMENTS, *DOCUMENTS])
    assert [score.index for score in ranking] == [1, 3, 0, 2]  # ties in the call's order
    assert [score.index for score in ranking.scores] == [0, 1, 2, 3]

    def fail(query: str, document: str) -> float:
        raise RemoteTimeout("no answer")

    with pytest.raises(RemoteTimeout):
        FakeRanker(fail).rank(QUERY, DOCUMENTS)


def test_a_fake_ranker_checks_arguments_and_reports_progress() -> None:
    done: list[int] = []
    FakeRanker().rank(QUERY, DOCUMENTS, progress=done.append)
    assert done == [2]
    with pytest.raises(InvalidRequest, match="Document 1 is None"):
        FakeRanker().rank(QUERY, ["a", None])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest, match="top_n"):
        FakeRanker().rank(QUERY, DOCUMENTS, top_n=0)


def test_a_fake_model_scores_through_an_engine() -> None:
    model = FakeModel()
    scorer = EngineScorer(Engine(model), model)
    try:
        ranking = asyncio.run(scorer.rank(scorer.prepare(RerankRequest((QUERY,), DOCUMENTS))))
    finally:
        scorer.close()
    assert [score.index for score in ranking] == [1, 0]
    assert [len(batch) for batch in model.batches] == [2] and len(model.requests) == 1
