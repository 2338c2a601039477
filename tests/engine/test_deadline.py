"""Deadlines: what can be scored in time is scored, with the clock in the test's hands."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from rerankd.engine.engine import Engine
from rerankd.engine.scorer import EngineScorer
from rerankd.engine.speed import Speed
from rerankd.errors import Busy
from rerankd.types import Passages, Prompt, Ranking, RerankRequest
from support.fakes import NumberedModel

DOCUMENTS = ("3", "1", "4", "1.5", "9", "2", "6")


class Clock:
    """Seconds; each batch of one document takes one."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scorer(clock: Clock) -> Iterator[EngineScorer]:
    def take_a_second(document: str) -> None:
        clock.now += 1

    model = NumberedModel(take_a_second)
    scorer = EngineScorer(Engine(model, clock=clock), model)
    yield scorer
    scorer.close()


def rank(scorer: EngineScorer, deadline: float | None, documents: tuple[str, ...] = DOCUMENTS) -> Ranking:
    prepared = scorer.prepare(RerankRequest(("query",), documents, deadline=deadline))
    return prepared.finish(scorer.submit(prepared).result(30))


def test_enough_time_changes_nothing(scorer: EngineScorer) -> None:
    assert rank(scorer, 1e9) == rank(scorer, None)


@pytest.mark.parametrize(("seconds", "num_scored"), [(1.1, 1), (3.1, 3), (3.9, 3), (6.9, 6), (7.1, 7)])
def test_the_first_documents_are_scored_and_no_batch_begins_that_would_end_late(
    scorer: EngineScorer, clock: Clock, seconds: float, num_scored: int
) -> None:
    rank(scorer, None, ("0",))  # now the engine knows its speed
    everything = rank(scorer, None)
    began = clock.now
    ranking = rank(scorer, began + seconds)
    assert clock.now == began + num_scored, "in time"
    assert [score.scored for score in ranking.scores] == [True] * num_scored + [False] * (7 - num_scored)
    assert [score.logit for score in ranking.scores[:num_scored]] == [
        score.logit for score in everything.scores[:num_scored]
    ]
    scored = [score for score in ranking if score.scored]
    rest = ranking[len(scored) :]
    assert [score.index for score in rest] == list(range(num_scored, 7)), "behind, in the call's order"
    for score in rest:
        assert score.score < scored[-1].score and score.raw_score < scored[-1].raw_score
        assert score.document == DOCUMENTS[score.index]
    texts = [score.prompt for score in ranking.scores[:num_scored] if score.prompt]
    assert ranking.usage.text_tokens == sum(prompt.query_tokens + prompt.document_tokens for prompt in texts)
    assert ranking.usage.total_tokens == sum(len(prompt.token_ids) for prompt in texts)
    told = f"{7 - num_scored} of 7 documents were not scored before the deadline"
    assert ranking.warnings == ((told,) if num_scored < 7 else ())


def test_nothing_in_time_is_busy_and_computes_nothing(scorer: EngineScorer, clock: Clock) -> None:
    rank(scorer, None, ("0",))
    now = clock.now
    for seconds in (0.5, 0, -5):
        with pytest.raises(Busy, match="No document was scored before the deadline"):
            rank(scorer, now + seconds)
    assert clock.now == now


def test_one_slow_batch_does_not_end_the_service(clock: Clock) -> None:
    """Of calls that all have a deadline: none of them would be begun, so none would show that the model is quick."""
    stall_s = 1e6

    def stall_once(document: str) -> None:
        nonlocal stall_s
        clock.now, stall_s = clock.now + stall_s, 1.0

    model = NumberedModel(stall_once)
    scorer = EngineScorer(Engine(model, clock=clock), model)
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append([score.scored for score in rank(scorer, clock.now + 10)])
        except Busy:
            outcomes.append([])
    assert outcomes[-1] == [True] * 7 and outcomes.count([]) <= 2
    scorer.close()


def test_a_small_batch_does_not_slow_down_what_is_expected_of_a_large_one() -> None:
    speed = Speed()
    speed.add(512, 0.25)
    speed.add(10, 0.05)
    assert 512 * speed.seconds_per_token < 0.3
    speed.doubt()
    speed.doubt()
    assert speed.seconds_per_token == 0


def test_known_logits_need_no_time(clock: Clock) -> None:
    model = NumberedModel()
    scorer = EngineScorer(Engine(model, score_cache_bytes=1_000_000, clock=clock), model)
    rank(scorer, None, ("3", "1"))
    ranking = rank(scorer, clock.now - 1)
    assert [score.scored for score in ranking.scores] == [True, True] + [False] * 5
    scorer.close()


def test_a_call_that_waits_behind_another_ends_at_its_deadline(clock: Clock) -> None:
    model = NumberedModel()
    engine = Engine(model, clock=clock)
    scorer = EngineScorer(engine, model)
    model.gate.clear()
    first = scorer.submit(scorer.prepare(RerankRequest(("query",), ("1",))))
    assert model.entered.wait(30)
    prepared = scorer.prepare(RerankRequest(("query",), DOCUMENTS, deadline=clock.now + 5))
    second = scorer.submit(prepared)
    clock.now += 6  # while the first one computes
    engine.end_late()
    assert sorted(second.result(30).unscored) == list(range(7)) and not first.done()
    model.gate.set()
    assert list(first.result(30).values) == [1.0]
    assert all(math.isnan(value) for value in second.result().values)
    scorer.close()


def test_a_document_keeps_the_passages_that_were_in_time(clock: Clock) -> None:
    class SlowModel(NumberedModel):
        def _number(self, prompt: Prompt) -> float:
            clock.now += 1
            return float(len(prompt.document))

    model = SlowModel()
    scorer = EngineScorer(Engine(model, clock=clock), model)
    rank(scorer, None, ("0",))
    text = "".join(f"Sentence {number} has six short words. " for number in range(8))
    request = RerankRequest(("query",), (text, "9", "8"), passages=Passages(16, 0), deadline=clock.now + 3.5)
    prepared = scorer.prepare(request)
    ranking = prepared.finish(scorer.submit(prepared).result(30))
    assert [score.scored for score in ranking.scores] == [True, False, False]
    assert ranking.scores[0].num_passages == 3
    assert ranking.warnings == (
        "1 of 3 documents were split: 6 passages in all",
        "2 of 3 documents were not scored before the deadline",
        "1 of 3 documents have passages that were not scored before the deadline",
    )
    scorer.close()
