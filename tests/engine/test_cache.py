"""Nothing is computed twice: repeated prompts of a call, and prompts of earlier calls."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from rerankd.engine.cache import BYTES_PER_ENTRY, ScoreCache
from rerankd.engine.engine import Engine
from rerankd.engine.job import keys_of
from rerankd.stats import CacheStats
from rerankd.testing import FakeModel
from rerankd.types import Prompt


class CountingModel(FakeModel):
    """The logit of a prompt is its first token, of 13 NaN."""

    def __init__(self) -> None:
        super().__init__(lambda prompt: math.nan if prompt.token_ids[0] == 13 else float(prompt.token_ids[0]))

    @property
    def seen(self) -> list[int]:
        """The first tokens of all prompts it was given."""
        return [prompt.token_ids[0] for batch in self.batches for prompt in batch]


def prompts(*firsts: int) -> list[Prompt]:
    return [Prompt("", "", [first, 5], 0, 0) for first in firsts]


@pytest.fixture
def model() -> CountingModel:
    return CountingModel()


@pytest.fixture
def engine(model: CountingModel) -> Iterator[Engine]:
    engine = Engine(model, score_cache_bytes=3 * BYTES_PER_ENTRY)
    yield engine
    engine.close()


def test_a_repeated_document_is_computed_once_and_answered_each_time(engine: Engine, model: CountingModel) -> None:
    assert engine.submit(prompts(1, 2, 1, 1, 2)).result(10).values == [1, 2, 1, 1, 2]
    assert model.seen == [1, 2]


def test_a_later_call_computes_only_what_is_new(engine: Engine, model: CountingModel) -> None:
    engine.submit(prompts(1, 2)).result(10)
    done: list[int] = []
    assert engine.submit(prompts(2, 3, 1), done.append).result(10).values == [2, 3, 1]
    assert model.seen == [1, 2, 3]
    assert engine.submit(prompts(3, 2)).result(0).values == [3, 2], "answered at once"


def test_the_least_recently_used_is_computed_again(engine: Engine, model: CountingModel) -> None:
    for first in (1, 2, 3, 1, 4, 2):  # 4 drives 2 out: 1 was used again
        engine.submit(prompts(first)).result(10)
    assert model.seen == [1, 2, 3, 4, 2]


def test_without_a_cache_every_call_computes(model: CountingModel) -> None:
    engine = Engine(model)
    for _ in range(2):
        engine.submit(prompts(1, 1)).result(10)
    engine.close()
    assert model.seen == [1, 1]


def test_what_is_no_number_is_not_kept(engine: Engine, model: CountingModel) -> None:
    for _ in range(2):
        engine.submit(prompts(13)).result(10)
    assert model.seen == [13, 13]


def test_hits_and_misses_are_counted() -> None:
    cache = ScoreCache(10**6)
    [key] = keys_of(prompts(1))
    assert cache.get(key) is None
    cache.put_all([(key, 0.5)])
    assert cache.get(key) == 0.5
    assert cache.stats == CacheStats(hits=1, misses=1, bytes=BYTES_PER_ENTRY)


def test_keys_tell_prompts_apart() -> None:
    ids = ([1], [1, 0], [0, 1], [256], [1, 0, 0, 0])
    assert len(set(keys_of([Prompt("", "", tokens, 0, 0) for tokens in ids]))) == len(ids)


def test_a_key_does_not_depend_on_the_prefix_that_is_hashed_once() -> None:
    ids = [*range(40)]
    apart = [Prompt("", "", ids, 7, 0, prefix=tuple(ids[:length])) for length in (0, 1, 39, 40)]
    assert len(set(keys_of(apart))) == 1
    assert keys_of(apart) == [key for prompt in apart for key in keys_of([prompt])]
    assert keys_of([replace(apart[1], query_tokens=8)]) != keys_of([apart[1]])
    assert keys_of([apart[1]], "one") != keys_of([apart[1]], "other")


def test_a_separator_written_in_a_text_does_not_make_two_pairs_one() -> None:
    from rerankd import Reranker

    pairs = [("red planet [SEP] [CLS] mars", "venus is hot"), ("red planet", "mars [SEP] [CLS] venus is hot")]
    with Reranker("embedded") as warm:
        first, second = (warm.rank(query, [document]).scores[0].logit for query, document in pairs)
    assert first is not None and second is not None and abs(first - second) > 0.01
