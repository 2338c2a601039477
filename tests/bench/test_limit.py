"""The limit of `rerankd bench` is the matrix products of what a timed call computes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from rerankd.bench.hardware import CALLS_GPU, ROWS_GPU, computed_tokens, linear_flops, matrix_seconds
from rerankd.bench.workloads import workload_of
from rerankd.engine.qwen3.layers import TorchLayers
from rerankd.engine.qwen3.linear import float_layers
from rerankd.engine.qwen3.ops import TorchOperations
from rerankd.engine.qwen3.shared_prefix import SharedPrefixForward
from rerankd.engine.qwen3.weights import Checkpoint, load_reranker, read_config


@pytest.mark.parametrize("name", ["1x30", "5x60", "2x300/128"])
def test_the_tokens_of_a_timed_call(tiny_checkpoint: Path, name: str) -> None:
    prompts = workload_of(name).prompts(seed=0)
    checkpoint = Checkpoint(tiny_checkpoint, read_config(tiny_checkpoint), yes_id=9693, no_id=2152)
    network = load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)
    forward = SharedPrefixForward(network, TorchLayers(network.config, float_layers(network), TorchOperations()))
    forward.logits(prompts[:1])  # the warm-up
    before = forward.tokens_computed
    forward.logits(prompts)
    assert forward.tokens_computed - before == computed_tokens(prompts)


def test_the_operations_of_a_token_are_two_for_each_weight(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    checkpoint = Checkpoint(tiny_checkpoint, config, yes_id=9693, no_id=2152)
    network = load_reranker(checkpoint, torch.float32, torch.device("cpu"), lambda done, in_all: None)
    weights = sum(weight.numel() for name, weight in network.named_parameters() if "proj" in name)
    assert linear_flops(config) == 2 * weights > 0


def test_a_gpu_is_timed_when_it_has_computed_what_it_was_given(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the device `meta`, which computes nothing; the clock advances only in a wait for it."""
    now = 0.0

    def synchronize(device: torch.device) -> None:
        nonlocal now
        assert device.type == "meta"
        now += 0.5

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    config = read_config(tiny_checkpoint)
    a_product = 0.5 / CALLS_GPU  # the wait after the warm-up does not count
    expected = 4 * config.num_hidden_layers * a_product / ROWS_GPU
    assert matrix_seconds(config, torch.bfloat16, torch.device("meta")) == pytest.approx(expected)
