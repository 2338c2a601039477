"""On a CUDA card: the served forward pass against the specification, and the memory of a batch against its estimate.

`make gpu-report` runs these tests; elsewhere they are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rerankd.engine.engine import MAX_BATCH_TOKENS_GPU, Engine
from rerankd.engine.loading.devices import Execution
from rerankd.engine.protocols import LastChunk
from rerankd.engine.qwen3.batch_tokens import LEAST, token_bytes
from rerankd.engine.qwen3.loaded import Qwen3Model
from rerankd.engine.qwen3.model import Qwen3Reranker
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config
from support.prompts import prompts

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")

SHAPE = dict(num_hidden_layers=3, hidden_size=256, intermediate_size=768, num_attention_heads=4, head_dim=128)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)

FLOAT32_BOUND = 1e-3
WAIT_S = 60
WORKSPACE = 100_000_000
"""Bytes that the libraries of products may take for themselves."""


def load(folder: Path, dtype: torch.dtype, deterministic: bool = False) -> Qwen3Model:
    return Qwen3Model("small", folder, Execution(DEVICE, dtype, deterministic), lambda done, in_all: None)


def specification(folder: Path, dtype: torch.dtype, device: torch.device) -> Qwen3Reranker:
    checkpoint = Checkpoint(folder, read_config(folder), 9693, 2152)
    return load_reranker(checkpoint, dtype, device, lambda done, in_all: None)


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(**SHAPE)


@pytest.fixture(scope="module")
def batch() -> list[LastChunk]:
    """Of several queries: short and long documents, and a prefix longer than all of them."""
    return [*prompts(77, [105] * 10 + [30, 1, 700], 1), *prompts(600, [20, 300], 2), *prompts(0, [50], 3)]


@pytest.fixture(scope="module")
def exact(folder: Path, batch: list[LastChunk]) -> torch.Tensor:
    """The logits in float32 on the CPU."""
    network = specification(folder, torch.float32, torch.device("cpu"))
    logits: torch.Tensor = network([one.prompt.token_ids for one in batch])
    return logits


def error(logits: torch.Tensor, exact: torch.Tensor) -> float:
    return float((logits.cpu() - exact).abs().max())


@DTYPES
def test_equals_the_specification(
    folder: Path, batch: list[LastChunk], exact: torch.Tensor, dtype: torch.dtype
) -> None:
    """In bfloat16: as near to float32 as the specification in bfloat16 on the same card, within a factor of two."""
    assert exact.max() - exact.min() > 0.1, "logits this close together would agree by accident"
    plain = specification(folder, dtype, DEVICE)([one.prompt.token_ids for one in batch])
    bound = FLOAT32_BOUND if dtype == torch.float32 else 2 * error(plain, exact)
    assert error(load(folder, dtype)(batch), exact) <= bound


@DTYPES
def test_alone_and_in_a_batch(folder: Path, batch: list[LastChunk], exact: torch.Tensor, dtype: torch.dtype) -> None:
    model = load(folder, dtype)
    together = model(batch)
    alone = torch.cat([model([one]) for one in batch])
    bound = FLOAT32_BOUND if dtype == torch.float32 else 2 * error(together, exact)
    assert error(alone, together) <= bound


@DTYPES
def test_deterministic_means_the_same_bits_in_any_batch(
    folder: Path, batch: list[LastChunk], dtype: torch.dtype
) -> None:
    model = load(folder, dtype, deterministic=True)
    assert model(batch).tolist() == [model([one]).item() for one in batch]


def test_a_batch_needs_no_more_memory_than_its_estimate(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    whole = [*prompts(77, [105] * 60, 4), *prompts(77, [1000] * 2, 5)]
    model(whole[:1])  # opens the libraries
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    model(whole)
    needed = torch.cuda.max_memory_allocated(DEVICE) - before
    num_tokens = sum(len(one.prompt.token_ids) for one in whole)
    assert needed <= num_tokens * token_bytes(read_config(folder), 2) + WORKSPACE


def test_an_engine_fills_the_card_and_answers(
    folder: Path, batch: list[LastChunk], exact: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = Engine(load(folder, torch.float32))
        try:
            assert LEAST <= engine.max_batch_tokens <= MAX_BATCH_TOKENS_GPU
            logits = engine.submit([one.prompt for one in batch]).result(WAIT_S).values
        finally:
            engine.close()
    assert error(torch.tensor(logits), exact) <= FLOAT32_BOUND
    assert not [record for record in caplog.records if "memory is full" in record.message]
