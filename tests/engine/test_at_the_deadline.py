"""A request ends at its deadline, also while a batch runs for it, and once only. The clock is in the test's hands."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine.alarm import Alarm
from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.engine.protocols import Chunk, LastChunk
from rerankd.engine.scorer import EngineScorer
from rerankd.testing import FakeModel
from rerankd.types import Logits, Prompt, RerankRequest
from support.fakes import NumberedModel
from support.waiting import wait_until

WAIT_S = 60
"""After which a test gives up."""

DOCUMENTS = ("3", "1", "4", "1.5", "9")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class StopsAt(NumberedModel):
    """Waits in the batch of one document until the test lets it go on."""

    def __init__(self, document: str) -> None:
        super().__init__(self._stop)
        self.document = document
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def _stop(self, document: str) -> None:
        if document == self.document:
            self.stopped.set()
            assert self.go_on.wait(WAIT_S)


@pytest.fixture
def model() -> Iterator[StopsAt]:
    model = StopsAt("4")
    yield model
    model.go_on.set()


def submit(scorer: EngineScorer, deadline: float | None, documents: Sequence[str] = DOCUMENTS) -> Future[Logits]:
    return scorer.submit(scorer.prepare(RerankRequest(("query",), tuple(documents), deadline=deadline)))


def test_the_answer_leaves_while_a_batch_runs(model: StopsAt, clock: Clock) -> None:
    engine = Engine(model, score_cache_bytes=1_000_000, clock=clock)
    scorer = EngineScorer(engine, model)
    done: list[int] = []
    prepared = scorer.prepare(RerankRequest(("query",), DOCUMENTS, deadline=clock.now + 5))
    future = scorer.submit(prepared, done.append)
    other = submit(scorer, clock.now + 20, ["7", "8"])
    assert model.stopped.wait(WAIT_S)
    clock.now += 6
    assert engine.end_late() == 120.0, "the deadline of the other one"
    logits = future.result(WAIT_S)
    assert not model.go_on.is_set()
    assert list(logits.values[:2]) == [3.0, 1.0] and sorted(logits.unscored) == [2, 3, 4]
    ranking = prepared.finish(logits)
    assert [score.scored for score in ranking.scores] == [True, True, False, False, False]
    assert ranking.usage.text_tokens == 2 * 2, "what was scored"
    model.go_on.set()
    assert list(other.result(WAIT_S).values) == [7.0, 8.0]
    assert done == [1, 2], "nothing is reported after the end"
    again = submit(scorer, None).result(WAIT_S)
    assert list(again.values) == [3.0, 1.0, 4.0, 1.5, 9.0] and again.cached == {0, 1, 2}, "the batch was not in vain"
    assert model.seen.count("4") == 1
    scorer.close()


def test_the_engine_looks_by_itself(model: StopsAt) -> None:
    scorer = EngineScorer(Engine(model), model)
    future = submit(scorer, time.monotonic() + 0.05, ["4", "5"])
    assert sorted(future.result(WAIT_S).unscored) == [0, 1]
    assert submit(scorer, time.monotonic() + 0.05).result(WAIT_S).unscored, "and does so again"
    model.go_on.set()
    assert list(submit(scorer, None).result(WAIT_S).values) == [3.0, 1.0, 4.0, 1.5, 9.0]
    scorer.close()


def test_many_deadlines_while_one_batch_runs(model: StopsAt) -> None:
    scorer = EngineScorer(Engine(model), model)
    first = submit(scorer, None, ["4"])
    assert model.stopped.wait(WAIT_S)
    now = time.monotonic()
    others = [submit(scorer, now + seconds, [str(seconds)]) for seconds in (0.08, 0.02, 0.05, -1.0, 0.02)]
    assert [sorted(other.result(WAIT_S).unscored) for other in others] == [[0]] * 5
    assert not first.done()
    model.go_on.set()
    assert list(first.result(WAIT_S).values) == [4.0]
    scorer.close()


class Reading:
    """Tokens read so far, of as many as it is for."""

    def __init__(self, num_read: int, size: int) -> None:
        self.num_read, self.size = num_read, size


class LongReader(FakeModel):
    """Reads in chunks, and waits in its third pass."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: float(len(prompt.token_ids)))
        self.num_passes = 0
        self.held: list[weakref.ref[Reading]] = []
        self.stopped, self.go_on = threading.Event(), threading.Event()

    def begin(self, prompt: LastChunk, num_tokens: int) -> Reading:
        reading = Reading(0, num_tokens)
        self.held.append(weakref.ref(reading))
        return reading

    def read(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> list[float]:
        self.num_passes += 1
        if self.num_passes == 3:
            self.stopped.set()
            assert self.go_on.wait(WAIT_S)
        for chunk in chunks:
            assert isinstance(chunk.reading, Reading) and chunk.reading.num_read < chunk.end <= chunk.reading.size
            chunk.reading.num_read = chunk.end
        return self.answer([one.prompt for one in last])


def test_a_long_prompt_that_ends_while_it_is_read_frees_its_memory_and_disturbs_no_other(clock: Clock) -> None:
    model = LongReader()
    engine = Engine(model, clock=clock)
    long = Prompt("", "", range(10, 10 + 20 * MAX_BATCH_TOKENS), 0, 0)
    late = engine.submit([long], deadline=clock.now + 5)
    other = engine.submit([Prompt("", "", range(1_000_000, 1_000_000 + 9 * MAX_BATCH_TOKENS), 0, 0)])
    assert model.stopped.wait(WAIT_S)
    clock.now += 6
    engine.end_late()
    assert late.result(WAIT_S).unscored == {0}
    model.go_on.set()
    assert list(other.result(WAIT_S).values) == [9.0 * MAX_BATCH_TOKENS]
    wait_until(lambda: not any(one() for one in model.held))
    assert model.num_passes < 60
    engine.close()


@settings(max_examples=150, deadline=None)
@given(
    calls=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=4),
    rings=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=4),
)
def test_whenever_the_alarm_rings_each_request_ends_once_and_right(
    calls: list[tuple[int, int]], rings: list[tuple[int, bool]]
) -> None:
    """Each document takes a second. The alarm rings within some batches: before their end, or beside it."""
    clock, scored = Clock(), 0
    beside: list[threading.Thread] = []

    def one_more(document: str) -> None:
        nonlocal scored
        scored, clock.now = scored + 1, clock.now + 1
        for at, within in rings:
            if at == scored and within:
                engine.end_late()
            elif at == scored:
                beside.append(threading.Thread(target=engine.end_late))
                beside[-1].start()

    model = NumberedModel(one_more)
    model.gate.clear()
    engine = Engine(model, clock=clock)
    scorer = EngineScorer(engine, model)
    ends: list[Future[Logits]] = []
    futures: list[tuple[tuple[str, ...], Future[Logits]]] = []
    for number, (size, seconds) in enumerate(calls):
        texts = tuple(str(100 * number + place) for place in range(size))
        prepared = scorer.prepare(RerankRequest(("query",), texts, deadline=100.5 + seconds))
        futures.append((texts, scorer.submit(prepared)))
        futures[-1][1].add_done_callback(ends.append)
    model.gate.set()
    for texts, future in futures:
        logits = future.result(WAIT_S)
        known = [index for index in range(len(texts)) if index not in logits.unscored]
        assert known == list(range(len(known))), "the first ones"
        assert [logits.values[index] for index in known] == [float(texts[index]) for index in known]
        assert all(math.isnan(logits.values[index]) for index in logits.unscored)
    scorer.close()
    for thread in beside:
        thread.join()
    assert sorted(map(id, ends)) == sorted(id(future) for _, future in futures), "each once"
    assert scored == len(model.seen) <= sum(size for size, _ in calls)


def test_the_end_of_a_batch_and_the_deadline_at_once() -> None:
    """Either may win; the answer is one of the two, whole."""
    for _ in range(200):
        clock, line, begun = Clock(), threading.Barrier(2), threading.Event()

        def meet(document: str, line: threading.Barrier = line, begun: threading.Event = begun) -> None:
            if document == "2":
                begun.set()
                line.wait(WAIT_S)

        model = NumberedModel(meet)
        engine = Engine(model, clock=clock)
        future = engine.submit(model.encode(RerankRequest(("query",), ("1", "2"))), deadline=clock.now + 5)
        assert begun.wait(WAIT_S)
        clock.now += 6
        line.wait(WAIT_S)
        engine.end_late()
        logits = future.result(WAIT_S)
        assert logits.values[0] == 1.0 and (logits.unscored == {1} or list(logits.values) == [1.0, 2.0])
        assert math.isnan(logits.values[1]) == (1 in logits.unscored)
        engine.close()


def test_an_engine_that_is_closed_is_freed_at_once(clock: Clock) -> None:
    model = NumberedModel()
    engine = Engine(model, clock=clock)
    engine.submit(model.encode(RerankRequest(("query",), ("1",))), deadline=clock.now + 5).result(WAIT_S)
    engine.close()
    gone = weakref.ref(engine)
    del engine
    assert gone() is None


def test_an_alarm_rings_at_the_earliest_time_first() -> None:
    rang: list[float] = []
    times = [1.0, 2.0, 3.0]
    clock = Clock()
    all_rang = threading.Event()

    def ring() -> float:
        rang.append(clock.now)
        clock.now = times[len(rang)] if len(rang) < 3 else clock.now
        if len(rang) == 3:
            all_rang.set()
        return clock.now if len(rang) < 3 else math.inf

    clock.now = 1.0
    alarm = Alarm(ring, clock)
    alarm.set(1e9)
    alarm.set(1.0)
    assert all_rang.wait(WAIT_S)
    assert rang == times
    alarm.close()
    alarm.set(0.0)
    assert rang == times, "it is closed"
