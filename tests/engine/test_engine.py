"""The engine's promises, with models that cost nothing: each request ends once, with its own outcome."""

from __future__ import annotations

import itertools
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rerankd.engine.batching import Batches
from rerankd.engine.counters import Counters
from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.engine.protocols import Chunk, LastChunk
from rerankd.errors import Busy, InferenceError, Stopping
from rerankd.testing import FakeModel
from rerankd.types import Logits, Prompt
from support.waiting import wait_until

WAIT_S = 60
"""Seconds after which a test gives up."""

serial = itertools.count(step=100_000)
HALF = MAX_BATCH_TOKENS // 2 + 1
"""Tokens of a prompt that shares its batch with no other of its size."""


class LengthModel(FakeModel):
    """The logit of a prompt is its number of tokens."""

    def __init__(self) -> None:
        super().__init__(logit=lambda prompt: float(len(prompt.token_ids)))

    @property
    def seen(self) -> list[int]:
        """The lengths of all prompts it was given."""
        return [len(pair.token_ids) for batch in self.batches for pair in batch]


def prompt(length: int, document: str = "") -> Prompt:
    """Unlike every other, so that none is answered from another's logit."""
    return Prompt("", document, range(first := next(serial), first + length), 0, 0)


def prompts(*lengths: int) -> list[Prompt]:
    return [prompt(length) for length in lengths]


def lengths(pairs: Sequence[Prompt]) -> list[float]:
    return [len(pair.token_ids) for pair in pairs]


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts an engine on a model; closes them all at the end."""
    started: list[tuple[Engine, LengthModel]] = []

    def make(model: LengthModel, max_queue: int = 256, clock: Callable[[], float] = time.monotonic) -> Engine:
        engine = Engine(model, max_queue, clock=clock)
        started.append((engine, model))
        return engine

    yield make
    for engine, model in started:
        model.gate.set()
        engine.close()


def hold(engine: Engine, model: LengthModel) -> Future[Logits]:
    """Stops the model inside a request, so that what follows waits in the queue."""
    model.gate.clear()
    model.entered.clear()
    running = engine.submit(prompts(MAX_BATCH_TOKENS))
    assert model.entered.wait(WAIT_S)
    return running


# Results


def test_requests_of_many_threads_get_their_own_logits_in_order(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    rng = random.Random(5)
    requests = [prompts(*(rng.randint(1, 60) for _ in range(rng.randint(0, 12)))) for _ in range(200)]
    running = hold(engine, model)
    with ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(engine.submit, requests))
    model.gate.set()
    assert [future.result(WAIT_S).values for future in futures] == [lengths(pairs) for pairs in requests]
    assert running.result(WAIT_S).values == [MAX_BATCH_TOKENS]
    assert len(model.seen) == 1 + sum(map(len, requests)), "each prompt runs once"
    assert all(sum(lengths(batch)) <= MAX_BATCH_TOKENS for batch in model.batches)
    assert len(model.batches) < len(requests), "requests share batches"


def test_one_prompt_over_the_budget_runs_alone(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    sizes = (1, MAX_BATCH_TOKENS + 1, 2)
    assert start(model).submit(prompts(*sizes)).result(WAIT_S).values == list(sizes)
    assert [lengths(batch) for batch in model.batches] == [[1], [MAX_BATCH_TOKENS + 1], [2]]


def test_a_short_request_does_not_wait_for_a_long_one(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    hold(engine, model)
    long = engine.submit(prompts(*[500] * 60))
    short = engine.submit(prompts(10, 20))
    model.gate.set()
    assert short.result(WAIT_S).values == [10, 20] and long.result(WAIT_S).values == [500] * 60
    assert model.seen.index(20) <= 5, "in the first batch, beside the long one's first prompts"


def test_prefixes_that_differ_count_against_the_batch(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    prefix = tuple(range(390))
    shared = Prompt("", "", [*range(400)], 0, 0, prefix=prefix)
    same = [Prompt("", "", [*prefix, 9000 + i], 0, 0, prefix=tuple(prefix)) for i in range(50)]
    other = [Prompt("", "", range(i, i + 400), 0, 0, prefix=tuple(range(i, i + 390))) for i in range(1, 21)]
    engine.submit([shared, *same]).result(WAIT_S)
    assert len(model.batches) == 1, "one prefix, computed once"
    engine.submit(other).result(WAIT_S)
    assert all(sum(lengths(batch)) <= MAX_BATCH_TOKENS for batch in model.batches[1:])


def test_an_empty_request_is_done_at_once(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    assert start(model).submit([]).result(0).values == []
    assert model.batches == []


def test_progress_counts_the_pairs_done(start: Callable[..., Engine]) -> None:
    done: list[int] = []
    start(LengthModel()).submit(prompts(HALF, 1, HALF, HALF), done.append)
    wait_until(lambda: done == [2, 3, 4])


# Failures


class PoisonedModel(LengthModel):
    """Fails on a batch with a prompt whose document is `poison`."""

    def answer(self, batch: Sequence[Prompt]) -> list[float]:
        if any(pair.document == "poison" for pair in batch):
            raise ValueError("secret detail")
        return super().answer(batch)


def test_a_failure_hits_only_its_own_request(start: Callable[..., Engine]) -> None:
    model = PoisonedModel()
    engine = start(model)
    hold(engine, model)
    good = [engine.submit(prompts(1, 2)), engine.submit(prompts(3))]
    bad = engine.submit([prompt(4), prompt(5, "poison")])
    good.append(engine.submit(prompts(6)))
    model.gate.set()
    assert [future.result(WAIT_S).values for future in good] == [[1, 2], [3], [6]]
    error = bad.exception(WAIT_S)
    assert isinstance(error, InferenceError) and "secret detail" not in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert len(model.batches[1]) == 6, "they did run together"


def test_a_failure_in_the_middle_ends_the_request(start: Callable[..., Engine]) -> None:
    model = PoisonedModel()
    engine = start(model)
    bad = engine.submit([prompt(HALF), prompt(HALF, "poison"), prompt(HALF + 1)])
    assert isinstance(bad.exception(WAIT_S), InferenceError)
    assert engine.submit(prompts(7)).result(WAIT_S).values == [7]
    assert HALF + 1 not in model.seen


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_logits_is_a_failure(start: Callable[..., Engine], surplus: int) -> None:
    class Miscounting(LengthModel):
        def answer(self, batch: Sequence[Prompt]) -> list[float]:
            return [*super().answer(batch), 0.0] if surplus > 0 else super().answer(batch)[:-1]

    model = Miscounting()
    engine = start(model)
    running = hold(engine, model)
    futures = [running, engine.submit(prompts(1, 2)), engine.submit(prompts(3))]
    model.gate.set()
    assert [type(future.exception(WAIT_S)) for future in futures] == [InferenceError] * 3
    model.answer = lambda batch: LengthModel.answer(model, batch)  # type: ignore[method-assign]
    assert engine.submit(prompts(4)).result(WAIT_S).values == [4]


def test_a_progress_callback_that_raises_does_not_stop_the_engine(start: Callable[..., Engine]) -> None:
    calls: list[int] = []

    def broken(done: int) -> None:
        calls.append(done)
        raise RuntimeError("the terminal is gone")

    engine = start(LengthModel())
    assert engine.submit(prompts(HALF, HALF), broken).result(WAIT_S).values == [HALF, HALF]
    assert engine.submit(prompts(3)).result(WAIT_S).values == [3]
    assert calls == [1], "it is not called again"


# Failures outside the model


@pytest.mark.parametrize("error", [SystemExit(3), MemoryError(), KeyboardInterrupt()], ids=repr)
def test_whatever_the_model_raises_only_its_request_fails(start: Callable[..., Engine], error: BaseException) -> None:
    class Raising(LengthModel):
        def answer(self, batch: Sequence[Prompt]) -> list[float]:
            if any(pair.document == "poison" for pair in batch):
                raise error
            return super().answer(batch)

    engine = start(Raising())
    bad, good = engine.submit([prompt(5, "poison")]), engine.submit(prompts(6))
    assert isinstance(bad.exception(WAIT_S), InferenceError) and good.result(WAIT_S).values == [6]
    assert engine.failure is None


@pytest.mark.parametrize("name", ["computed", "began"])
@pytest.mark.parametrize("error", [ValueError("a bug"), SystemExit(3)], ids=repr)
def test_the_engine_goes_on_after_an_error_outside_the_model(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    def broken(*_: object) -> None:
        raise error

    engine = start(LengthModel())
    with monkeypatch.context() as patch:
        patch.setattr(Counters, name, broken)
        for _ in range(2):
            assert isinstance(engine.submit(prompts(5, HALF, HALF)).exception(WAIT_S), InferenceError)
    assert engine.submit(prompts(6)).result(WAIT_S).values == [6]
    assert engine.failure is None and engine.num_queued <= 1


def test_an_engine_that_cannot_go_on_ends_all_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[int]:
        raise ValueError("a bug")

    told: list[BaseException] = []
    model = LengthModel()
    engine = Engine(model)
    engine.watch(told.append)
    hold(engine, model)
    monkeypatch.setattr(Batches, "choose", broken)
    model.gate.set()
    refused = 0
    while not refused:
        try:
            future = engine.submit(prompts(6))
        except Stopping:
            refused += 1
        else:
            assert isinstance(future.exception(WAIT_S), InferenceError)
    wait_until(lambda: bool(told))
    assert isinstance(engine.failure, ValueError) and told == [engine.failure]
    engine.close()
    engine.watch(told.append)
    assert len(told) == 2, "who asks later is told at once"


# Chunks


class ChunkedModel(LengthModel):
    """Keeps what it has to read, and how long; a reading is a list of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []
        self.readings: list[weakref.ref[FakeReading]] = []
        self.fail = 0

    def begin(self, prompt: LastChunk, num_tokens: int) -> FakeReading:
        reading = FakeReading(prompt.after.num_read if prompt.after else 0, num_tokens)
        self.readings.append(weakref.ref(reading))
        return reading

    def read(self, chunks: Sequence[Chunk], last: Sequence[LastChunk]) -> list[float]:
        self.wait_at_gate()
        if self.fail:
            self.fail -= 1
            raise ValueError("once")
        tokens = 0
        for chunk in chunks:
            assert isinstance(chunk.reading, FakeReading) and chunk.reading.num_read < chunk.end <= chunk.reading.size
            tokens += chunk.end - chunk.reading.num_read
            chunk.reading.num_read = chunk.end
        for one in last:
            after = one.after.num_read if one.after else 0
            assert one.after is None or after == one.after.size  # type: ignore[attr-defined]
            tokens += len(one.prompt.token_ids) - after
        self.passes.append(tokens)
        self.batches.append([one.prompt for one in last])
        return self.answer(self.batches[-1])

    @property
    def num_held(self) -> int:
        """Tokens of readings that somebody holds."""
        return sum(reading.size for one in self.readings if (reading := one()))


class FakeReading:
    def __init__(self, num_read: int, size: int) -> None:
        self.num_read, self.size = num_read, size


def shared_prefix(length: int, *own: int) -> list[Prompt]:
    """Prompts of one prefix, each with so many tokens of its own."""
    prefix = tuple(prompt(length).token_ids)
    return [Prompt("", "", [*prefix, *prompt(size).token_ids], 0, 0, prefix=prefix) for size in own]


def test_a_long_prompt_is_read_in_batches_and_others_pass(start: Callable[..., Engine]) -> None:
    model = ChunkedModel()
    engine = start(model)
    long = engine.submit(prompts(20 * MAX_BATCH_TOKENS))
    assert model.entered.wait(WAIT_S)
    shorts = [engine.submit(prompts(10)) for _ in range(5)]
    assert [short.result(WAIT_S).values for short in shorts] == [[10]] * 5
    assert not long.done() or len(model.passes) > 20
    assert long.result(WAIT_S).values == [20 * MAX_BATCH_TOKENS]
    assert max(model.passes) <= MAX_BATCH_TOKENS
    assert sum(model.passes) == 20 * MAX_BATCH_TOKENS + 50, "each token once"


def test_a_long_shared_prefix_is_read_once(start: Callable[..., Engine]) -> None:
    model = ChunkedModel()
    pairs = shared_prefix(5 * MAX_BATCH_TOKENS, 10, 20, 3 * MAX_BATCH_TOKENS, 30)
    assert start(model).submit(pairs).result(WAIT_S).values == lengths(pairs)
    assert max(model.passes) <= MAX_BATCH_TOKENS
    assert sum(model.passes) == 8 * MAX_BATCH_TOKENS + 60
    assert model.num_held == 0


def test_a_chunk_that_failed_beside_another_request_is_read_again(start: Callable[..., Engine]) -> None:
    model = ChunkedModel()
    engine = start(model)
    model.gate.clear()
    futures = [engine.submit(prompts(size)) for size in (5 * MAX_BATCH_TOKENS, 7)]
    model.fail = 1
    model.gate.set()
    outcomes = [future.exception(WAIT_S) for future in futures]
    assert sum(outcome is not None for outcome in outcomes) <= 1, "at most the one that ran alone"
    assert engine.submit(prompts(3 * MAX_BATCH_TOKENS)).result(WAIT_S).values == [3 * MAX_BATCH_TOKENS]


def test_a_cancelled_prompt_frees_what_was_read_of_it(start: Callable[..., Engine]) -> None:
    model = ChunkedModel()
    engine = start(model)
    model.gate.clear()
    long = engine.submit(prompts(20 * MAX_BATCH_TOKENS))
    assert model.entered.wait(WAIT_S)
    assert model.num_held > 19 * MAX_BATCH_TOKENS
    assert long.cancel()
    model.gate.set()
    wait_until(lambda: model.num_held == 0)
    assert sum(model.passes) <= MAX_BATCH_TOKENS


# Owners


def test_nobody_is_answered_from_what_was_computed_for_another() -> None:
    model = LengthModel()
    engine = Engine(model, score_cache_bytes=10**6)
    pairs = prompts(5)
    try:
        for owner, cached in (("a", False), ("b", False), ("a", True), ("", False)):
            assert bool(engine.submit(pairs, owner=owner).result(WAIT_S).cached) == cached
    finally:
        engine.close()
    assert len(model.seen) == 3


# Cancelling


def test_a_cancelled_request_never_runs(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    hold(engine, model)
    cancelled, kept = engine.submit(prompts(5)), engine.submit(prompts(6))
    assert cancelled.cancel()
    model.gate.set()
    assert kept.result(WAIT_S).values == [6]
    assert 5 not in model.seen


def test_the_rest_of_a_cancelled_request_never_runs(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    model.gate.clear()
    cancelled = engine.submit(prompts(HALF, HALF, HALF))
    assert model.entered.wait(WAIT_S) and cancelled.cancel()
    kept = engine.submit(prompts(6))
    model.gate.set()
    assert kept.result(WAIT_S).values == [6]
    assert model.seen == [HALF, 6]


def test_a_cancelled_request_leaves_its_place_to_another(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model, max_queue=2)
    hold(engine, model)
    assert engine.submit(prompts(5)).cancel()
    kept = engine.submit(prompts(6))
    model.gate.set()
    assert kept.result(WAIT_S).values == [6]


# The queue's ends


def test_a_full_queue_is_busy_until_there_is_room(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model, max_queue=2)
    waiting = [hold(engine, model), engine.submit(prompts(5))]
    with pytest.raises(Busy, match="2 requests") as caught:
        engine.submit(prompts(6))
    assert caught.value.retry_after_s >= 1
    assert engine.num_queued == 2
    assert engine.submit([]).result(0).values == []
    model.gate.set()
    assert [future.result(WAIT_S).values for future in waiting] == [[MAX_BATCH_TOKENS], [5]]
    wait_until(lambda: engine.num_queued == 0)
    assert engine.submit(prompts(6)).result(WAIT_S).values == [6]


def test_a_queue_is_full_by_its_bytes_too(start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerankd.engine.entrance.MAX_QUEUE_BYTES", 10_000)
    model = LengthModel()
    engine = start(model)
    running = hold(engine, model)
    kept = engine.submit(prompts(1, 2, 3))
    with pytest.raises(Busy, match="5 documents") as caught:
        engine.submit(prompts(1, 2, 3, 4, 5))
    assert caught.value.retry_after_s >= 1
    model.gate.set()
    assert running.result(WAIT_S) and kept.result(WAIT_S).values == [1, 2, 3]
    wait_until(lambda: engine.num_queued == 0)
    assert engine.submit(prompts(*[5] * 50)).result(WAIT_S).values == [5] * 50, "alone it may be larger"


def test_busy_says_how_long_the_oldest_request_takes(start: Callable[..., Engine]) -> None:
    now = [100.0]
    model = LengthModel()
    engine = start(model, max_queue=1, clock=lambda: now[0])
    running = hold(engine, model)
    now[0] += 0.5
    model.gate.set()
    running.result(WAIT_S)  # a full batch in half a second
    wait_until(lambda: engine.num_queued == 0)
    model.gate.clear()
    engine.submit(prompts(*[MAX_BATCH_TOKENS] * 20))  # ten seconds at that speed
    with pytest.raises(Busy) as caught:
        engine.submit(prompts(1))
    assert caught.value.retry_after_s == 10


def test_close_finishes_the_queue_and_refuses_the_rest(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    waiting = [hold(engine, model), engine.submit(prompts(5, HALF, HALF)), engine.submit(prompts(6))]
    closing = threading.Thread(target=engine.close)
    closing.start()

    def refused() -> bool:
        try:
            waiting.append(engine.submit(prompts(7)))
        except Stopping as error:
            return error.retry_after_s >= 1
        return False

    wait_until(refused)
    assert not any(future.done() for future in waiting)
    model.gate.set()
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert [future.result(0).values for future in waiting[:3]] == [[MAX_BATCH_TOKENS], [5, HALF, HALF], [6]]
    assert all(future.result(0).values == [7] for future in waiting[3:])
    assert refused()
