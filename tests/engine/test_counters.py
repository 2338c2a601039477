"""`Engine.stats`: what it says was done was done, and nothing else."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rerankd.engine.counters import BATCH_FILL
from rerankd.engine.engine import MAX_BATCH_TOKENS, Engine
from rerankd.errors import InferenceError
from rerankd.stats import CacheStats
from rerankd.testing import FakeModel
from rerankd.types import Limits, Prompt
from support.pairs_request import pairs_request


def first_token(prompt: Prompt) -> float:
    """The logit of a prompt; the model fails on 13."""
    if prompt.token_ids[0] == 13:
        raise RuntimeError
    return float(prompt.token_ids[0])


def prompt(first: int, length: int) -> Prompt:
    return Prompt("", "", [first, *range(length - 1)], 0, 0)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel(first_token)


@pytest.fixture
def engine(model: FakeModel) -> Any:
    engine = Engine(model, score_cache_bytes=10**6)
    yield engine
    model.gate.set()
    engine.close()


def test_a_new_engine_has_done_nothing(engine: Engine) -> None:
    stats = engine.stats
    assert (stats.running, stats.waiting, stats.tokens_computed, stats.seconds_computing) == (0, 0, 0, 0)
    assert set(stats.batch_fill.counts) == set(stats.queue_s.counts) == {0}
    assert stats.prefix_cache == stats.score_cache == CacheStats()


def test_a_batch_is_counted_where_its_fill_belongs(engine: Engine) -> None:
    lengths = (MAX_BATCH_TOKENS, MAX_BATCH_TOKENS // 2, 3 * MAX_BATCH_TOKENS)
    for first, length in enumerate(lengths):
        engine.submit([prompt(first, length)]).result(10)
    stats = engine.stats
    assert stats.tokens_computed == sum(lengths) and stats.seconds_computing > 0
    assert stats.batch_fill.bounds == (*BATCH_FILL, math.inf)
    full = {
        bound: count for bound, count in zip(stats.batch_fill.bounds, stats.batch_fill.counts, strict=True) if count
    }
    assert full == {0.5: 1, 1.0: 1, math.inf: 1}
    assert stats.batch_fill.total == pytest.approx(4.5)
    assert sum(stats.queue_s.counts) == 3


def test_known_prompts_save_their_tokens_and_do_not_wait(engine: Engine) -> None:
    pairs = [prompt(1, 10), prompt(2, 20), prompt(1, 10)]
    engine.submit(pairs).result(10)
    assert engine.stats.score_cache == CacheStats(hits=0, misses=2, tokens=10, bytes=2 * 240)
    engine.submit([*pairs, prompt(3, 30)]).result(10)
    assert engine.stats.score_cache == CacheStats(hits=2, misses=3, tokens=10 + 40, bytes=3 * 240)
    engine.submit(pairs).result(10)
    stats = engine.stats
    assert stats.tokens_computed == 60 and stats.score_cache.tokens == 90
    assert sum(stats.queue_s.counts) == 2


def test_a_batch_that_breaks_is_not_counted_and_those_beside_it_are(engine: Engine, model: FakeModel) -> None:
    model.gate.clear()
    futures = [engine.submit([prompt(1, MAX_BATCH_TOKENS)])]  # alone in its batch
    assert model.entered.wait(10)
    futures += [engine.submit([prompt(first, 10)]) for first in (13, 2)]
    model.gate.set()
    assert [futures[0].result(10).values, futures[2].result(10).values] == [[1], [2]]
    with pytest.raises(InferenceError):
        futures[1].result(10)
    stats = engine.stats
    assert (stats.tokens_computed, sum(stats.batch_fill.counts)) == (MAX_BATCH_TOKENS + 10, 2)
    assert sum(stats.queue_s.counts) == 3


def test_what_runs_and_what_waits(engine: Engine, model: FakeModel) -> None:
    model.gate.clear()
    first = engine.submit([prompt(1, MAX_BATCH_TOKENS), prompt(2, MAX_BATCH_TOKENS)])
    assert model.entered.wait(10)
    others = [engine.submit([prompt(number, MAX_BATCH_TOKENS)]) for number in (3, 4)]
    assert (engine.stats.running, engine.stats.waiting) == (1, 2)
    others[0].cancel()
    assert (engine.stats.running, engine.stats.waiting) == (1, 1)
    model.gate.set()
    first.result(10), others[1].result(10)
    assert (engine.stats.running, engine.stats.waiting) == (0, 0)
    assert sum(engine.stats.queue_s.counts) == 2


def test_read_at_any_time_the_figures_add_up(engine: Engine) -> None:
    """Each batch here is one prompt of ten tokens, whatever moment is looked at."""
    done = threading.Event()

    def read() -> int:
        looks = 0
        while not done.is_set():
            stats = engine.stats
            batches = sum(stats.batch_fill.counts)
            assert stats.tokens_computed == pytest.approx(stats.batch_fill.total * MAX_BATCH_TOKENS)
            assert sum(stats.queue_s.counts) >= batches
            looks += 1
        return looks

    with ThreadPoolExecutor() as pool:
        reader = pool.submit(read)
        for first in range(300):
            engine.submit([prompt(100 + first, 10)]).result(10)
        done.set()
        assert reader.result(10) > 0
    assert engine.stats.tokens_computed == 3000


@pytest.mark.parametrize("deterministic", [False, True])
def test_tokens_that_prompts_share_are_computed_once(deterministic: bool, make_checkpoint: Callable[..., Path]) -> None:
    from rerankd.engine.loading.open import Choice, open_model

    model = open_model(Choice(str(make_checkpoint()), "cpu", "float32", deterministic))
    engine = Engine(model)
    pairs = model.prompts.encode(
        pairs_request([("red planet", document) for document in ("mars", "venus is hot")], "", Limits())
    )
    shared = pairs[0].shared_len
    whole = sum(len(pair.token_ids) for pair in pairs)
    assert shared == pairs[1].shared_len > 20
    for calls, reused in ((1, shared), (2, 3 * shared)):
        engine.submit(pairs).result(20)
        stats = engine.stats
        assert (stats.tokens_computed, stats.prefix_cache.tokens) == (calls * whole - reused, reused)
    engine.close()
    # One at a time, each prompt looks its prefix up.
    assert (stats.prefix_cache.hits, stats.prefix_cache.misses) == ((3, 1) if deterministic else (1, 1))
    assert (
        stats.prefix_cache.bytes == 3 * 2 * shared * 2 * 16 * 4
    )  # layers, keys and values, tokens, heads, size, bytes
