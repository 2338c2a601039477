"""The tokens of a batch on a GPU, from its free memory."""

from __future__ import annotations

import pytest
import torch

from rerankd.engine.engine import MAX_BATCH_TOKENS_GPU
from rerankd.engine.loading.device_memory import free_bytes
from rerankd.engine.qwen3.batch_tokens import LEAST, batch_tokens, token_bytes
from rerankd.engine.qwen3.model import Qwen3Config


def config(hidden_size: int, intermediate_size: int, layers: int, heads: int) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=151_669,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )


CONFIGS = {
    "0.6B": config(1024, 3072, 28, 16),
    "4B": config(2560, 9728, 36, 32),
    "8B": config(4096, 12_288, 36, 32),
}
WEIGHTS = {"0.6B": 1_200_000_000, "4B": 8_000_000_000, "8B": 15_100_000_000}
"""Bytes in bfloat16."""

DRIVER = 500_000_000
"""Bytes that CUDA itself takes."""


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        # 2 × (2·1024 + 4096 + 5·2048 + 6·3072) + 512 + 3·8192 + 2·28·1024·2
        ("0.6B", 69_632 + 512 + 24_576 + 114_688),
        # 2 × (2·2560 + 6144 + 5·4096 + 6·5120) + 512 + 3·8192 + 2·36·1024·2
        ("4B", 124_928 + 512 + 24_576 + 147_456),
        # The MLP is the larger half: 2 × (2·4096 + 6144 + 4096 + 4·12288) + …
        ("8B", 135_168 + 512 + 24_576 + 147_456),
    ],
)
def test_bytes_of_a_token_are_those_of_the_derivation(size: str, expected: int) -> None:
    assert token_bytes(CONFIGS[size], 2) == expected


@pytest.mark.parametrize(
    ("size", "gigabytes", "expected"),
    [
        # GB: free 6.3, less 0.256 of prefixes, 2.8186 held (24,576 × 114,688 bytes) and 0.63: 2.5954; / 1.25 / 209,408
        ("0.6B", 8, 9_915),
        ("0.6B", 16, 16_384),
        # 7.5 - 0.256 - 3.6239 (24,576 × 147,456) - 0.75 = 2.8701; / 1.25 / 297,472
        ("4B", 16, 7_718),
        ("4B", 24, 16_384),
        ("8B", 16, 2_048),
        # 8.4 - 0.256 - 3.6239 - 0.84 = 3.6801; / 1.25 / 307,712
        ("8B", 24, 9_567),
        ("8B", 80, 16_384),
    ],
)
def test_tokens_that_fit_beside_the_weights(size: str, gigabytes: int, expected: int) -> None:
    free = max(0, gigabytes * 1_000_000_000 - WEIGHTS[size] - DRIVER)
    assert batch_tokens(CONFIGS[size], 2, free) == expected


def test_more_memory_never_gives_fewer_tokens_and_both_ends_are_bounded() -> None:
    for shape in CONFIGS.values():
        tokens = [batch_tokens(shape, 2, gigabytes * 1_000_000_000) for gigabytes in range(81)]
        assert tokens == sorted(tokens)
        assert (tokens[0], tokens[-1]) == (LEAST, MAX_BATCH_TOKENS_GPU)
        assert batch_tokens(shape, 4, 8_000_000_000) < max(LEAST + 1, batch_tokens(shape, 2, 8_000_000_000))


def test_an_unknown_memory_gives_the_largest_batch() -> None:
    assert free_bytes(torch.device("cpu")) is None
    assert batch_tokens(CONFIGS["8B"], 2, None) == MAX_BATCH_TOKENS_GPU


def test_free_memory_on_cuda_counts_what_pytorch_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5_000, 9_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2_000)
    assert free_bytes(torch.device("cuda")) == 6_000


def test_a_driver_that_does_not_say_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: torch.device) -> int:
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.cuda, "memory_reserved", fails)
    assert free_bytes(torch.device("cuda")) is None
