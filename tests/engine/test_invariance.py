"""A pair's logit is its own: not its neighbours', not its place's, not the batch's."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankd.engine import engine as engine_module
from rerankd.engine.engine import Engine
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.dtypes import lacks_int8
from rerankd.engine.qwen3.loaded import Qwen3Model
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from rerankd.types import Prompt

TOLERANCE = 1e-4
BATCH_BOUND = 1e-3  # of a logit, in bfloat16 and int8; docs/performance.md states it


def prompt(shared_len: int, own_len: int, query: int) -> Prompt:
    """Random token ids, always the same for the same arguments; those of one query begin with the same ones."""
    of_query, own = random.Random(query), random.Random(f"{shared_len} {own_len} {query}")
    token_ids = [of_query.randrange(151643) for _ in range(shared_len)] + [
        own.randrange(151643) for _ in range(own_len)
    ]
    return Prompt("", "", token_ids, 0, 0, prefix=tuple(token_ids[:shared_len]))


def load(folder: Path, dtype: torch.dtype, deterministic: bool = False) -> Qwen3Model:
    execution = Execution(torch.device("cpu"), dtype, deterministic)
    return Qwen3Model("tiny", folder, execution, lambda done, in_all: None)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Qwen3Model:
    return load(tiny_checkpoint, torch.float32)


@pytest.fixture(scope="module")
def alone(tiny_checkpoint: Path) -> Callable[[Prompt], float]:
    """A prompt's logit from the plain network in a batch of one, computed once."""
    checkpoint = Checkpoint(tiny_checkpoint, read_config(tiny_checkpoint), 9693, 2152)
    network = load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)
    known: dict[tuple[int, ...], float] = {}

    def logit(pair: Prompt) -> float:
        key = tuple(pair.token_ids)
        if key not in known:
            known[key] = network([pair.token_ids]).item()
        return known[key]

    return logit


@pytest.fixture(scope="module")
def engine(model: Qwen3Model) -> Iterator[Engine]:
    engine = Engine(model)
    yield engine
    engine.close()


PROMPTS = st.builds(prompt, st.integers(0, 150), st.integers(1, 150), st.integers(0, 2))


@settings(deadline=None, max_examples=25)
@given(batch=st.lists(PROMPTS, min_size=1, max_size=12))
def test_a_batch_gives_each_prompt_its_own_logit(
    model: Qwen3Model, alone: Callable[[Prompt], float], batch: list[Prompt]
) -> None:
    assert model.logits(batch) == pytest.approx([alone(pair) for pair in batch], rel=0, abs=TOLERANCE)


@settings(deadline=None, max_examples=15)
@given(requests=st.lists(st.lists(PROMPTS, min_size=1, max_size=8), min_size=2, max_size=6))
def test_requests_that_run_together_do_not_touch_each_other(
    engine: Engine, alone: Callable[[Prompt], float], requests: list[list[Prompt]]
) -> None:
    with ThreadPoolExecutor(len(requests)) as threads:
        futures = [threads.submit(lambda pairs: engine.submit(pairs).result(60), pairs) for pairs in requests]
    for pairs, future in zip(requests, futures, strict=True):
        assert future.result().values == pytest.approx([alone(pair) for pair in pairs], rel=0, abs=TOLERANCE)


def test_neither_order_nor_batch_size_matters(
    model: Qwen3Model, alone: Callable[[Prompt], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [prompt(shared_len, own_len, 9) for shared_len in (0, 1, 60) for own_len in (1, 2, 64, 240)]
    expected = [alone(pair) for pair in pairs]
    assert max(expected) - min(expected) > 1, "logits this close together would agree by accident"
    for max_tokens in (1, 200, 400, 10_000):
        monkeypatch.setattr(engine_module, "MAX_BATCH_TOKENS", max_tokens)
        engine = Engine(model)
        try:
            assert engine.submit(pairs).result(60).values == pytest.approx(expected, rel=0, abs=TOLERANCE)
            assert engine.submit(pairs[::-1]).result(60).values == pytest.approx(expected[::-1], rel=0, abs=TOLERANCE)
        finally:
            engine.close()


LONG = st.builds(prompt, st.sampled_from([0, 3, 40, 90, 200]), st.sampled_from([1, 5, 40, 100, 300]), st.integers(0, 1))


@settings(deadline=None, max_examples=25)
@given(requests=st.lists(st.lists(LONG, min_size=1, max_size=5), min_size=1, max_size=4))
def test_a_prompt_in_chunks_has_the_logit_of_the_whole(
    model: Qwen3Model, alone: Callable[[Prompt], float], requests: list[list[Prompt]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "MAX_BATCH_TOKENS", 64)
        engine = Engine(model)
    try:
        for pairs, future in [(pairs, engine.submit(pairs, owner=str(len(pairs)))) for pairs in requests]:
            assert future.result(60).values == pytest.approx([alone(pair) for pair in pairs], rel=0, abs=TOLERANCE)
    finally:
        engine.close()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic_means_the_same_bits_in_chunks_whatever_else_waits(
    make_checkpoint: Callable[..., Path], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_BATCH_TOKENS", 64)
    folder = make_checkpoint(**KERNEL_SHAPE)
    pairs = [prompt(shared_len, own_len, 9) for shared_len in (0, 20, 90) for own_len in (1, 50, 140)]
    expected: dict[int, float] = {}
    for order in (range(9), reversed(range(9)), [8, 2, 5, 0, 3, 6, 1, 4, 7]):
        engine = Engine(load(folder, dtype, deterministic=True))
        try:
            futures = {index: engine.submit([pairs[index]], priority=index % 2) for index in order}
            futures[9] = engine.submit(pairs)
            together = futures.pop(9).result(60).values
            for index, future in futures.items():
                assert [together[index]] == future.result(60).values == [expected.setdefault(index, together[index])]
        finally:
            engine.close()
    assert max(expected.values()) - min(expected.values()) > 1


KERNEL_SHAPE = dict(head_dim=128, num_attention_heads=4, num_key_value_heads=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_deterministic_means_the_same_bits_in_any_batch(
    make_checkpoint: Callable[..., Path], dtype: torch.dtype
) -> None:
    if dtype == torch.int8 and lacks_int8(torch.device("cpu")):
        pytest.skip("this processor has no int8 products")
    folder = make_checkpoint(**KERNEL_SHAPE)
    pairs = [prompt(shared_len, own_len, 9) for shared_len in (0, 1, 60) for own_len in (1, 2, 64, 240)]
    expected = load(folder, dtype, deterministic=True).logits(pairs)
    for order in (pairs[::-1], pairs[::2] + pairs[1::2], *([pair] for pair in pairs)):
        again = load(folder, dtype, deterministic=True).logits(order)
        assert again == [expected[pairs.index(pair)] for pair in order]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_a_batch_moves_a_logit_by_no_more_than_the_stated_bound(
    make_checkpoint: Callable[..., Path], dtype: torch.dtype
) -> None:
    if dtype == torch.int8 and lacks_int8(torch.device("cpu")):
        pytest.skip("this processor has no int8 products")
    model = load(make_checkpoint(**KERNEL_SHAPE), dtype)
    pairs = [prompt(shared_len, own_len, 9) for shared_len in (0, 1, 60) for own_len in (1, 2, 64, 240)]
    together = model.logits(pairs)
    assert max(together) - min(together) > 1
    assert [model.logits([pair])[0] for pair in pairs] == pytest.approx(together, rel=0, abs=BATCH_BOUND)
