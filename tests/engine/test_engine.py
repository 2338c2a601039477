"""The engine's promises, with models that cost nothing: each request ends once, with its own outcome."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.errors import Busy, InferenceError, Stopping
from rerankd.types import EncodedPair, Limits, ModelInfo, Pair

WAIT_S = 10
serial = itertools.count(step=100_000)
HALF = MAX_BATCH_TOKENS // 2 + 1
"""Tokens of a prompt that shares its batch with no other of its size."""


class LengthModel:
    """The logit of a prompt is its number of tokens. Runs only while `gate` is open; keeps what it was given."""

    info = ModelInfo("fake", "qwen3", "none", 32768, "cpu", "float32", 0, "")

    def __init__(self) -> None:
        self.batches: list[list[EncodedPair]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def encode(self, pairs: Sequence[Pair], instruct: str, limits: Limits) -> list[EncodedPair]:
        return [prompt(len(pair.document)) for pair in pairs]

    def logits(self, batch: Sequence[EncodedPair]) -> list[float]:
        self.batches.append(list(batch))
        self.entered.set()
        assert self.gate.wait(WAIT_S)
        return self.answer(batch)

    def answer(self, batch: Sequence[EncodedPair]) -> list[float]:
        return [float(len(pair.token_ids)) for pair in batch]

    @property
    def seen(self) -> list[int]:
        """The lengths of all prompts it was given."""
        return [len(pair.token_ids) for batch in self.batches for pair in batch]


def prompt(length: int, document: str = "") -> EncodedPair:
    """Unlike every other, so that none is answered from another's logit."""
    return EncodedPair(Pair("", document), range(first := next(serial), first + length), 0, 0)


def prompts(*lengths: int) -> list[EncodedPair]:
    return [prompt(length) for length in lengths]


def lengths(pairs: Sequence[EncodedPair]) -> list[float]:
    return [len(pair.token_ids) for pair in pairs]


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Starts an engine on a model; closes them all at the end."""
    started: list[tuple[Engine, LengthModel]] = []

    def make(model: LengthModel, max_waiting: int = 256) -> Engine:
        engine = Engine(model, max_waiting)
        started.append((engine, model))
        return engine

    yield make
    for engine, model in started:
        model.gate.set()
        engine.close()


def hold(engine: Engine, model: LengthModel) -> Future[list[float]]:
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
    assert [future.result(WAIT_S) for future in futures] == [lengths(pairs) for pairs in requests]
    assert running.result(WAIT_S) == [MAX_BATCH_TOKENS]
    assert len(model.seen) == 1 + sum(map(len, requests)), "each prompt runs once"
    assert all(sum(lengths(batch)) <= MAX_BATCH_TOKENS for batch in model.batches)
    assert len(model.batches) < len(requests), "requests share batches"


def test_one_prompt_over_the_budget_runs_alone(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    sizes = (1, MAX_BATCH_TOKENS + 1, 2)
    assert start(model).submit(prompts(*sizes)).result(WAIT_S) == list(sizes)
    assert [lengths(batch) for batch in model.batches] == [[1], [MAX_BATCH_TOKENS + 1], [2]]


def test_a_short_request_does_not_wait_for_a_long_one(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    hold(engine, model)
    long = engine.submit(prompts(*[500] * 60))
    short = engine.submit(prompts(10, 20))
    model.gate.set()
    assert short.result(WAIT_S) == [10, 20] and long.result(WAIT_S) == [500] * 60
    assert model.seen.index(20) <= 5, "in the first batch, beside the long one's first prompts"


def test_prefixes_that_differ_count_against_the_batch(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    shared = EncodedPair(Pair("", ""), [*range(400)], 0, 0, shared_len=390)
    same = [EncodedPair(Pair("", ""), [*range(390), 9000 + i], 0, 0, shared_len=390) for i in range(50)]
    other = [EncodedPair(Pair("", ""), range(i, i + 400), 0, 0, shared_len=390) for i in range(1, 21)]
    engine.submit([shared, *same]).result(WAIT_S)
    assert len(model.batches) == 1, "one prefix, computed once"
    engine.submit(other).result(WAIT_S)
    assert all(sum(lengths(batch)) <= MAX_BATCH_TOKENS for batch in model.batches[1:])


def test_an_empty_request_is_done_at_once(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    assert start(model).submit([]).result(0) == []
    assert model.batches == []


def test_progress_counts_the_pairs_done(start: Callable[..., Engine]) -> None:
    done: list[int] = []
    start(LengthModel()).submit(prompts(HALF, 1, HALF, HALF), done.append)
    wait_until(lambda: done == [2, 3, 4])


# Failures


class PoisonedModel(LengthModel):
    """Fails on a batch with a prompt whose document is `poison`."""

    def answer(self, batch: Sequence[EncodedPair]) -> list[float]:
        if any(pair.pair.document == "poison" for pair in batch):
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
    assert [future.result(WAIT_S) for future in good] == [[1, 2], [3], [6]]
    error = bad.exception(WAIT_S)
    assert isinstance(error, InferenceError) and "secret detail" not in str(error)
    assert isinstance(error.__cause__, ValueError)
    assert len(model.batches[1]) == 6, "they did run together"


def test_a_failure_in_the_middle_ends_the_request(start: Callable[..., Engine]) -> None:
    model = PoisonedModel()
    engine = start(model)
    bad = engine.submit([prompt(HALF), prompt(HALF, "poison"), prompt(HALF + 1)])
    assert isinstance(bad.exception(WAIT_S), InferenceError)
    assert engine.submit(prompts(7)).result(WAIT_S) == [7]
    assert HALF + 1 not in model.seen


@pytest.mark.parametrize("surplus", [-1, 1])
def test_a_wrong_number_of_logits_is_a_failure(start: Callable[..., Engine], surplus: int) -> None:
    class Miscounting(LengthModel):
        def answer(self, batch: Sequence[EncodedPair]) -> list[float]:
            return [*super().answer(batch), 0.0] if surplus > 0 else super().answer(batch)[:-1]

    model = Miscounting()
    engine = start(model)
    running = hold(engine, model)
    futures = [running, engine.submit(prompts(1, 2)), engine.submit(prompts(3))]
    model.gate.set()
    assert [type(future.exception(WAIT_S)) for future in futures] == [InferenceError] * 3
    model.answer = lambda batch: LengthModel.answer(model, batch)  # type: ignore[method-assign]
    assert engine.submit(prompts(4)).result(WAIT_S) == [4]


def test_a_progress_callback_that_raises_does_not_stop_the_engine(start: Callable[..., Engine]) -> None:
    calls: list[int] = []

    def broken(done: int) -> None:
        calls.append(done)
        raise RuntimeError("the terminal is gone")

    engine = start(LengthModel())
    assert engine.submit(prompts(HALF, HALF), broken).result(WAIT_S) == [HALF, HALF]
    assert engine.submit(prompts(3)).result(WAIT_S) == [3]
    assert calls == [1], "it is not called again"


# Cancelling


def test_a_cancelled_request_never_runs(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    hold(engine, model)
    cancelled, kept = engine.submit(prompts(5)), engine.submit(prompts(6))
    assert cancelled.cancel()
    model.gate.set()
    assert kept.result(WAIT_S) == [6]
    assert 5 not in model.seen


def test_the_rest_of_a_cancelled_request_never_runs(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model)
    model.gate.clear()
    cancelled = engine.submit(prompts(HALF, HALF, HALF))
    assert model.entered.wait(WAIT_S) and cancelled.cancel()
    kept = engine.submit(prompts(6))
    model.gate.set()
    assert kept.result(WAIT_S) == [6]
    assert model.seen == [HALF, 6]


def test_a_cancelled_request_leaves_its_place_to_another(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model, max_waiting=2)
    hold(engine, model)
    assert engine.submit(prompts(5)).cancel()
    kept = engine.submit(prompts(6))
    model.gate.set()
    assert kept.result(WAIT_S) == [6]


# The queue's ends


def test_a_full_queue_is_busy_until_there_is_room(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model, max_waiting=2)
    waiting = [hold(engine, model), engine.submit(prompts(5))]
    with pytest.raises(Busy, match="2 requests") as caught:
        engine.submit(prompts(6))
    assert caught.value.retry_after_s >= 1
    assert engine.num_waiting == 2
    assert engine.submit([]).result(0) == []
    model.gate.set()
    assert [future.result(WAIT_S) for future in waiting] == [[MAX_BATCH_TOKENS], [5]]
    wait_until(lambda: engine.num_waiting == 0)
    assert engine.submit(prompts(6)).result(WAIT_S) == [6]


def test_busy_says_how_long_the_oldest_request_takes(start: Callable[..., Engine]) -> None:
    model = LengthModel()
    engine = start(model, max_waiting=1)
    running = hold(engine, model)
    time.sleep(0.5)
    model.gate.set()
    running.result(WAIT_S)  # 4,096 tokens in half a second
    wait_until(lambda: engine.num_waiting == 0)
    model.gate.clear()
    engine.submit(prompts(*[MAX_BATCH_TOKENS] * 20))  # ten seconds at that speed
    with pytest.raises(Busy) as caught:
        engine.submit(prompts(1))
    assert 10 <= caught.value.retry_after_s <= 20 * WAIT_S


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
    assert [future.result(0) for future in waiting[:3]] == [[MAX_BATCH_TOKENS], [5, HALF, HALF], [6]]
    assert all(future.result(0) == [7] for future in waiting[3:])
    assert refused()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
