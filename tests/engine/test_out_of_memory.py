"""A batch that does not fit into the memory of the GPU costs time, and no answer."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rerankd.engine import engine as engine_module
from rerankd.engine.engine import MAX_BATCH_TOKENS, MAX_BATCH_TOKENS_GPU, Engine
from rerankd.engine.loading.devices import Execution
from rerankd.engine.loading.embedding_files import prompts_of
from rerankd.engine.qwen3 import embedding
from rerankd.engine.qwen3.embedding import Qwen3Embedder
from rerankd.engine.qwen3.layers import TorchLayers
from rerankd.engine.qwen3.linear import float_layers
from rerankd.engine.qwen3.model import Qwen3Reranker
from rerankd.engine.qwen3.ops import TorchOperations
from rerankd.engine.qwen3.packed import Packed
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from rerankd.errors import InferenceError
from rerankd.testing import INFO, FakeModel
from rerankd.types import Prompt
from support.embedding_checkpoint import write_embedding_checkpoint

ON_GPU = replace(INFO, device="cuda")
TOLERANCE = 1e-4
WAIT_S = 60

SMALL = dict(num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_attention_heads=4, head_dim=8)


class SmallMemory(TorchLayers):
    """Layers on a device whose memory is full beyond some tokens. passes: the tokens of each."""

    def __init__(self, network: Qwen3Reranker, most: int) -> None:
        super().__init__(network.config, float_layers(network), TorchOperations())
        self.most = most
        self.passes: list[int] = []
        self.failed: list[weakref.ref[Tensor]] = []  # what the passes that failed had in memory

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, packed: Packed) -> Tensor:
        self.passes.append(len(x))
        if len(x) > self.most:
            self.failed.append(weakref.ref(x))
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x)} tokens")
        return super().__call__(x, cos, sin, packed)


class SmallModel(SharedPrefixForward):
    """Its weights are on the CPU, whatever it says."""

    info = ON_GPU
    max_batch_tokens = 1024

    def __init__(self, network: Qwen3Reranker, most: int) -> None:
        self.small = SmallMemory(network, most)
        super().__init__(network, self.small)


def prompt(first: int, length: int, shared: int = 20) -> Prompt:
    token_ids = [*range(100, 100 + shared), *range(first, first + length)]
    return Prompt("", "", token_ids, 0, 0, prefix=tuple(token_ids[:shared]))


@pytest.fixture
def network(make_checkpoint: Callable[..., Path]) -> Qwen3Reranker:
    folder = make_checkpoint(**SMALL)
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def make(model: FakeModel | SharedPrefixForward) -> Engine:
        started.append(Engine(model))  # type: ignore[arg-type]  # SharedPrefixForward has no info, SmallModel has
        return started[-1]

    yield make
    for engine in started:
        engine.close()


def test_batches_on_a_cpu_have_512_tokens_and_on_a_gpu_what_the_model_says(
    start: Callable[..., Engine], make_checkpoint: Callable[..., Path], network: Qwen3Reranker
) -> None:
    assert start(FakeModel()).max_batch_tokens == MAX_BATCH_TOKENS == 512
    assert start(FakeModel(info=ON_GPU)).max_batch_tokens == MAX_BATCH_TOKENS_GPU
    assert start(SmallModel(network, 10)).max_batch_tokens == 1024


def test_every_request_is_answered_in_smaller_batches(
    start: Callable[..., Engine], network: Qwen3Reranker, caplog: pytest.LogCaptureFixture
) -> None:
    model = SmallModel(network, most=200)
    engine = start(model)
    requests = [
        [prompt(1000, 900), prompt(2000, 30)],
        [prompt(4000, 40, shared=700), prompt(5000, 500, shared=700), prompt(6000, 3, shared=700)],
        [prompt(7000 + 100 * number, 60) for number in range(20)],
    ]
    with caplog.at_level(logging.WARNING):
        futures = [engine.submit(pairs) for pairs in requests]
        found = [future.result(WAIT_S).values for future in futures]
    for pairs, logits in zip(requests, found, strict=True):
        expected = network([pair.token_ids for pair in pairs]).tolist()
        assert logits == pytest.approx(expected, rel=0, abs=TOLERANCE)
    lowered = [record.message for record in caplog.records]
    assert 1 <= len(lowered) <= 3 and all("memory is full" in line for line in lowered)
    assert engine.max_batch_tokens < 1024
    failed = [tokens for tokens in model.small.passes if tokens > 200]
    assert len(failed) == len(lowered), "one warning for each batch that did not fit"
    before = len(model.small.passes)
    engine.submit([prompt(20_000 + 100 * number, 60) for number in range(20)]).result(WAIT_S)
    assert max(model.small.passes[before:]) <= 200, "the batches stay smaller"


def test_the_memory_of_a_pass_that_failed_is_free_before_the_next(
    start: Callable[..., Engine], network: Qwen3Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, freed = SmallModel(network, most=200), list[bool]()
    monkeypatch.setattr(
        engine_module, "return_cached_memory", lambda: freed.append(all(one() is None for one in model.small.failed))
    )
    start(model).submit([prompt(1000, 900)]).result(WAIT_S)
    assert freed and all(freed)


def test_a_request_that_no_batch_is_small_enough_for_fails_alone(
    start: Callable[..., Engine], network: Qwen3Reranker
) -> None:
    model = SmallModel(network, most=0)
    engine = start(model)
    assert isinstance(engine.submit([prompt(1000, 900)]).exception(WAIT_S), InferenceError)
    assert engine.max_batch_tokens == 1024 // 8, "not less: the next request may be another"
    model.small.most = 200
    [logit] = engine.submit([prompt(1000, 900)]).result(WAIT_S).values
    assert logit == pytest.approx(network([prompt(1000, 900).token_ids]).item(), rel=0, abs=TOLERANCE)


def test_a_prompt_that_cannot_be_divided_fails_and_lowers_nothing(start: Callable[..., Engine]) -> None:
    def logit(one: Prompt) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = start(FakeModel(logit, info=ON_GPU))
    assert isinstance(engine.submit([prompt(0, 5)]).exception(WAIT_S), InferenceError)
    assert engine.max_batch_tokens == MAX_BATCH_TOKENS_GPU


def test_vectors_come_from_halves_of_a_batch_that_does_not_fit(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_embedding_checkpoint(tmp_path, tokenizer_folder)
    execution = Execution(torch.device("cpu"), torch.float32)
    texts = [f"Text number {number} of a few words." for number in range(40)]

    def load() -> Qwen3Embedder:
        return Qwen3Embedder(tmp_path, execution, lambda done, in_all: None, prompts_of(tmp_path))

    expected = load().documents(texts)
    layers: list[SmallMemory] = []

    def small(checkpoint: Checkpoint, execution: Execution, progress: object) -> tuple[Qwen3Reranker, TorchLayers]:
        network = load_reranker(checkpoint, torch.float32, execution.device, lambda done, in_all: None)
        layers.append(SmallMemory(network, 100))
        return network, layers[0]

    monkeypatch.setattr(embedding, "load_network", small)
    embedder = load()
    found = embedder.documents(texts)
    assert np.abs(found - expected).max() <= TOLERANCE
    assert 1 <= len(caplog.records) <= 3
    before = len(layers[0].passes)
    embedder.documents(texts)
    assert max(layers[0].passes[before:]) <= 100, "the batches stay smaller"
